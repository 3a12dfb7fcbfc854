"""Whether the answers that a model gives by itself are the right ones, word for word or nearly."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

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

    No right token helps: each is the likeliest after the model's own, or what a search of so many
    `beams` finds. Both sides are put to text by `dataset.write`, then compared by sacrebleu (Post
    2018) as one corpus, smoothed as it does by default; `tokenize` is what parts the text there,
    and "none" takes its spaces. `length_ratio` is the answers' words over the references'.
    """

    objective_type = Seq2Seq

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
        subject, dataset, begin = self.subject, self.subject.dataset, self.subject.objective.begin
        assert dataset.end is not None
        assert dataset.answer_length is not None
        assert begin is not None
        end, split = dataset.tokens.index(dataset.end), dataset.splits[dataset.reported]
        answers, references = [], []
        with subject.observed():
            for examples, _ in subject.questions(split, batch_size=self.batch_size):
                found = search(
                    *(subject.model, examples.inputs, examples.valid),
                    *(begin, end, dataset.answer_length),
                    beams=self.beams,
                    length_penalty=self.length_penalty,
                )
                answers += [dataset.write(_until(end, answer)) for answer in found.tolist()]
                targets = examples.targets.tolist()
                references += [dataset.write(_until(end, target)) for target in targets]
        score = BLEU(tokenize=self.tokenize, force=True).corpus_score(answers, [references])
        exact = [answer == right for answer, right in zip(answers, references, strict=True)]
        return self.finding(
            {
                "bleu": float(score.score),
                "exact_match": sum(exact) / len(exact),
                "length_ratio": float(score.ratio),
            }
        )


def search(
    model: Model,
    inputs: Int[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"] | None,
    begin: int,
    end: int,
    longest: int,
    *,
    beams: int,
    length_penalty: float,
) -> Int[Tensor, "batch longest"]:
    """Find the best answer to each sequence by beam search; with one beam, the likeliest tokens.

    What `attnlab.generate.search` finds first for each alone. Behind an answer stands the end.
    """

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    rows = len(inputs)
    each = torch.arange(rows, device=inputs.device)
    best = torch.full((rows, longest), end, device=inputs.device)
    scores = torch.full((rows,), -torch.inf, dtype=torch.float64, device=inputs.device)
    # A beam of -inf is none: at first there is one, later those that have ended are none.
    totals = torch.full((rows, beams), -torch.inf, dtype=torch.float64, device=inputs.device)
    totals[:, 0] = 0.0
    texts = torch.full((rows, beams, longest), end, device=inputs.device)
    last = torch.full((rows * beams, 1), begin, device=inputs.device)
    state = _reordered(model.start(inputs, valid), repeat(each, "b -> (b k)", k=beams))
    for at in range(longest):
        logits, state = model.step(last, at, state)
        totals, parents, tokens = _continued(logits[:, -1], totals, begin)
        texts = texts.gather(1, repeat(parents, "b k -> b k l", l=longest))
        texts[:, :, at] = tokens
        over = (tokens == end) | (at + 1 == longest)
        found, which = totals.masked_fill(~over, -torch.inf).max(dim=1)
        better = found / penalty(at + 1) > scores
        scores = torch.where(better, found / penalty(at + 1), scores)
        best = torch.where(better[:, None], texts[each, which], best)
        totals = totals.masked_fill(over, -torch.inf)
        # A log-probability only falls, and the longest answer has the largest penalty.
        if bool((totals.amax(dim=1) / penalty(longest) <= scores).all()):
            break
        last = rearrange(tokens, "b k -> (b k) 1")
        if beams > 1:
            state = _reordered(state, rearrange(each[:, None] * beams + parents, "b k -> (b k)"))
    return best


def _continued(
    logits: Float[Tensor, "row token"], totals: Float[Tensor, "batch beam"], begin: int
) -> tuple[Float[Tensor, "batch beam"], Int[Tensor, "batch beam"], Int[Tensor, "batch beam"]]:
    """Give the likeliest continuations: their totals, the beams that they come from, and tokens."""
    beams = totals.shape[1]
    step = logits.double().log_softmax(dim=-1)
    # What opens an answer stands nowhere in it.
    step[:, begin] = -torch.inf
    ways = totals[..., None] + rearrange(step, "(b k) t -> b k t", k=beams)
    best, at = rearrange(ways, "b k t -> b (k t)").topk(beams, dim=1)
    return best, at // step.shape[1], at % step.shape[1]


def _reordered(state: object, rows: Int[Tensor, " row"]) -> object:
    return tree_map_only(Tensor, partial(torch.index_select, dim=0, index=rows), state)


def _until(end: int, answer: Sequence[int]) -> Sequence[int]:
    """Cut an answer off at its end, and where nothing is asked."""
    return answer[: next((at for at, t in enumerate(answer) if t in (end, IGNORE)), None)]
