"""BLEU and exact match of the answers that a model generates."""

from collections.abc import Sequence
from functools import partial
from math import inf
from typing import ClassVar, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from attnlab.evidence.base import Evidence
from attnlab.interp.subject import Subject
from attnlab.model.base import Model
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.ranges import Count, FewCount, NotNegative, ranged
from attnlab.run_record.finding import Finding
from attnlab.split import IGNORE

try:
    from sacrebleu.metrics.bleu import BLEU
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "evidence=bleu needs the package sacrebleu: pip install 'attnlab[translation]'"
    ) from error


@ranged
class AnswerBLEU(Evidence):
    """Measures `bleu` (0 to 100) and `exact_match` (a share) of the answers to the reported split.

    There is no teacher forcing: each token is the likeliest after the model's own, or the answer
    is that of a search with `beams` beams. `dataset.decode` turns answers and references into text,
    and sacrebleu (Post 2018) compares them as one corpus with its default smoothing; `tokenize` is
    its tokenizer, and "none" splits at spaces. `length_ratio` is the number of words of the answers
    over that of the references.
    """

    objective_type = Seq2Seq
    bounds: ClassVar = {"bleu": (0, 100), "exact_match": (0, 1), "length_ratio": (0, inf)}

    def __init__(
        self,
        subject: Subject,
        *,
        beams: FewCount = 1,
        length_penalty: NotNegative = 0.0,
        tokenize: Literal["none", "13a", "char", "intl", "zh"] = "none",
        batch_size: Count = 64,
    ) -> None:
        super().__init__(subject)
        self.beams, self.length_penalty = beams, length_penalty
        self.tokenize, self.batch_size = tokenize, batch_size

    def measure(self) -> Finding:
        subject, dataset, begin_id = (
            self.subject,
            self.subject.dataset,
            self.subject.objective.begin,
        )
        assert dataset.end is not None
        assert dataset.answer_length is not None
        assert begin_id is not None
        end_id, split = dataset.tokens.index(dataset.end), dataset.splits[dataset.report_split]
        answers, references = [], []
        with subject.observed():
            for examples, _ in subject.paired_batches(split, batch_size=self.batch_size):
                best_answers = search_answers(
                    *(subject.model, examples.inputs, examples.valid),
                    *(begin_id, end_id, dataset.answer_length),
                    beams=self.beams,
                    length_penalty=self.length_penalty,
                )
                answers += [
                    dataset.decode(_cut_at_end(end_id, answer)) for answer in best_answers.tolist()
                ]
                targets = examples.targets.tolist()
                references += [dataset.decode(_cut_at_end(end_id, target)) for target in targets]
        score = BLEU(tokenize=self.tokenize, force=True).corpus_score(answers, [references])
        is_exact = [
            answer == reference for answer, reference in zip(answers, references, strict=True)
        ]
        return self.finding(
            {
                "bleu": float(score.score),
                "exact_match": sum(is_exact) / len(is_exact),
                "length_ratio": float(score.ratio),
            }
        )


def search_answers(
    model: Model,
    inputs: Int[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"] | None,
    begin_id: int,
    end_id: int,
    longest: int,
    *,
    beams: int,
    length_penalty: float,
) -> Int[Tensor, "batch longest"]:
    """Return the best answer to each sequence by beam search; with one beam, the likeliest tokens.

    It is the first result of `attnlab.generate.search` for each sequence. An answer is padded with
    the end token.
    """

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    batch = len(inputs)
    sequence_index = torch.arange(batch, device=inputs.device)
    best_answers = torch.full((batch, longest), end_id, device=inputs.device)
    best_scores = torch.full((batch,), -torch.inf, dtype=torch.float64, device=inputs.device)
    # A total of -inf marks an unused beam: all but one at first, later those that have ended.
    beam_totals = torch.full((batch, beams), -torch.inf, dtype=torch.float64, device=inputs.device)
    beam_totals[:, 0] = 0.0
    answers = torch.full((batch, beams, longest), end_id, device=inputs.device)
    last_tokens = torch.full((batch * beams, 1), begin_id, device=inputs.device)
    state = _select_rows(model.start(inputs, valid), repeat(sequence_index, "b -> (b k)", k=beams))
    for position in range(longest):
        logits, state = model.step(last_tokens, position, state)
        beam_totals, parent_beams, tokens = _extend_beams(logits[:, -1], beam_totals, begin_id)
        answers = answers.gather(1, repeat(parent_beams, "b k -> b k l", l=longest))
        answers[:, :, position] = tokens
        is_finished = (tokens == end_id) | (position + 1 == longest)
        best_finished, finished_beam = beam_totals.masked_fill(~is_finished, -torch.inf).max(dim=1)
        finished_scores = best_finished / penalty(position + 1)
        is_improved = finished_scores > best_scores
        best_scores = torch.where(is_improved, finished_scores, best_scores)
        best_answers = torch.where(
            is_improved[:, None], answers[sequence_index, finished_beam], best_answers
        )
        beam_totals = beam_totals.masked_fill(is_finished, -torch.inf)
        # A log-probability only falls, and the longest answer has the largest penalty.
        if bool((beam_totals.amax(dim=1) / penalty(longest) <= best_scores).all()):
            break
        last_tokens = rearrange(tokens, "b k -> (b k) 1")
        if beams > 1:
            state = _select_rows(
                state, rearrange(sequence_index[:, None] * beams + parent_beams, "b k -> (b k)")
            )
    return best_answers


def _extend_beams(
    logits: Float[Tensor, "row token"], beam_totals: Float[Tensor, "batch beam"], begin_id: int
) -> tuple[Float[Tensor, "batch beam"], Int[Tensor, "batch beam"], Int[Tensor, "batch beam"]]:
    """Return the likeliest continuations: their totals, parent beams and tokens."""
    num_beams = beam_totals.shape[1]
    log_probabilities = logits.double().log_softmax(dim=-1)
    # The token that opens an answer does not occur in it.
    log_probabilities[:, begin_id] = -torch.inf
    candidates = beam_totals[..., None] + rearrange(
        log_probabilities, "(b k) t -> b k t", k=num_beams
    )
    best_totals, flat_index = rearrange(candidates, "b k t -> b (k t)").topk(num_beams, dim=1)
    return (
        best_totals,
        flat_index // log_probabilities.shape[1],
        flat_index % log_probabilities.shape[1],
    )


def _select_rows(state: object, rows: Int[Tensor, " row"]) -> object:
    return tree_map_only(Tensor, partial(torch.index_select, dim=0, index=rows), state)


def _cut_at_end(end_id: int, answer: Sequence[int]) -> Sequence[int]:
    """Return an answer up to its end token or the first ignored target."""
    end_positions = (position for position, token in enumerate(answer) if token in (end_id, IGNORE))
    return answer[: next(end_positions, None)]
