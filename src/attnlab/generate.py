"""Text generation: sampling token by token, and beam search."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from attnlab.errors import RequestError
from attnlab.model.base import Model

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""The character that a decoder puts in place of an incomplete byte sequence."""


def generate(
    model: Model,
    prompt: Sequence[int],
    pick: Callable[[Float[Tensor, " token"]], int],
    precision: Callable[[], AbstractContextManager] = nullcontext,
    state: Any = None,
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, without end; `pick` selects each from its logits.

    If a text is longer than the model's `max_length`, each new token is computed from a window of
    the last tokens without a cache: a cache cannot be shifted, since it counts positions from the
    beginning of the text. A model with an encoder begins with the `state` of its `start`.
    """
    longest, length = model.max_length, len(prompt)
    # Without a maximum length, the state has all tokens but the last one.
    window = deque(prompt, 1 if longest is None else longest)
    # Only around the model, so that the consumer of the tokens keeps its own context.
    with torch.no_grad(), precision():
        if longest is None or length <= longest:
            for position, token in enumerate(prompt[:-1]):
                _, state = model.step(torch.tensor([[token]]), position, state)
    while True:
        with torch.no_grad(), precision():
            if longest is None or length <= longest:
                logits, state = model.step(torch.tensor([[window[-1]]]), length - 1, state)
            else:
                state = None
                logits, _ = model(torch.tensor([[*window]]), torch.tensor([[longest - 1]]))
        window.append(pick(logits[0, -1]))
        length += 1
        yield window[-1]


class Hypothesis(NamedTuple):
    """An answer of beam search."""

    tokens: list[int]
    """The answer without its end token."""
    finished: bool
    """Whether the end token follows; if not, the answer has the maximum length."""
    log_probability: float
    """Of the tokens, and of the end token if it follows (nats)."""
    score: float
    """The number by which answers are ranked."""


def beam_search(
    model: Model,
    source: Int[Tensor, "1 seq"],
    begin: int,
    end: int,
    longest: int,
    *,
    beams: int,
    length_penalty: float,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> list[Hypothesis]:
    """Return answers of a model with an encoder by beam search (Sutskever et al. 2014, sec. 3.2).

    Of all continuations, the `beams` likeliest remain at each step. An answer that ends or has
    `longest` tokens leaves the beam and becomes a hypothesis. The best `beams` hypotheses are
    returned, by the log-probability over ((5 + n) / 6)^length_penalty for n tokens, the end
    included (Wu et al. 2016, eq. 14, without coverage). `begin` opens every answer and occurs in
    none.
    """

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    with torch.no_grad(), precision():
        state = model.start(source)
    beam, beam_log_probabilities = [[begin]], torch.zeros(1, dtype=torch.float64)
    hypotheses: list[Hypothesis] = []
    for position in range(longest):
        with torch.no_grad(), precision():
            last_tokens = torch.tensor([answer[-1:] for answer in beam])
            logits, state = model.step(last_tokens, position, state)
        token_log_probabilities = logits[:, -1].double().log_softmax(dim=-1)
        token_log_probabilities[:, begin] = -torch.inf
        candidates = rearrange(beam_log_probabilities, "b -> b 1") + token_log_probabilities
        vocabulary_size, num_candidates = logits.shape[-1], candidates.numel() - len(beam)
        # As in `distribution`, the lower token comes first among equals.
        order = candidates.flatten().argsort(descending=True, stable=True)
        likeliest_candidates = order[: min(beams, num_candidates)]
        beam_log_probabilities = candidates.flatten()[likeliest_candidates]
        parents = likeliest_candidates // vocabulary_size
        tokens = likeliest_candidates % vocabulary_size
        answers = [
            [*beam[parent], token]
            for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True)
        ]
        is_finished = (tokens == end) | (position + 1 == longest)
        for index in is_finished.nonzero().flatten().tolist():
            log_probability = float(beam_log_probabilities[index])
            has_end = answers[index][-1] == end
            answer = answers[index][1:-1] if has_end else answers[index][1:]
            score = log_probability / penalty(position + 1)
            hypotheses.append(Hypothesis(answer, has_end, log_probability, score))
        hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        unfinished = (~is_finished).nonzero().flatten()
        beam = [answers[index] for index in unfinished]
        beam_log_probabilities, parents = beam_log_probabilities[unfinished], parents[unfinished]
        score_to_beat = hypotheses[beams - 1].score if len(hypotheses) >= beams else -math.inf
        # A log-probability only falls, and the longest answer has the largest penalty.
        if not beam or beam_log_probabilities[0] / penalty(longest) <= score_to_beat:
            break
        state = tree_map_only(Tensor, partial(torch.index_select, dim=0, index=parents), state)
    return hypotheses[:beams]


def draw_token(
    logits: Float[Tensor, " token"],
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Draw a token from its `distribution`."""
    probability = distribution(logits, temperature, top_k, top_p)
    return int(torch.multinomial(probability, 1, generator=generator))


def distribution(
    logits: Float[Tensor, " token"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, " token"]:
    """Return the probability of each token: by temperature, then by `top_k`, then by `top_p`.

    The logits are divided by the temperature (Ackley et al. 1985); at 0 the likeliest token has
    probability 1. The `top_k` likeliest remain (Fan et al. 2018). Of them, with probabilities that
    sum to 1 again, the nucleus remains: the smallest set that reaches `top_p`, the token that
    crosses it included (Holtzman et al. 2020, sec. 3.1). Among equals the lower token comes first.
    """
    precise_logits = logits.double()
    order = precise_logits.argsort(descending=True, stable=True)
    if temperature == 0:
        top_k, temperature = 1, 1.0
    # The largest logit is 0 before the division, so a small temperature can only underflow to 0.
    sorted_logits = (precise_logits - precise_logits.max())[order]
    probabilities = (sorted_logits / temperature).softmax(dim=0)[:top_k]
    if top_p is not None:
        cumulative = probabilities.cumsum(dim=0) / probabilities.sum()
        probabilities = probabilities[: 1 + int((cumulative[:-1] < top_p).sum())]
    remaining_tokens = order[: len(probabilities)]
    probabilities = probabilities / probabilities.sum()
    return torch.zeros_like(precise_logits).index_copy(0, remaining_tokens, probabilities)


def decode_pieces(
    tokens: Iterable[int], prompt: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> Iterator[str]:
    """Yield the text of tokens after a prompt as they come; an incomplete character waits."""
    decoded_tokens, undecoded_tokens, piece = list(prompt), [], ""
    for token in tokens:
        undecoded_tokens.append(token)
        piece = decode([*decoded_tokens, *undecoded_tokens])[len(decode(decoded_tokens)) :]
        if not piece.endswith(INCOMPLETE):
            yield piece
            decoded_tokens, undecoded_tokens = undecoded_tokens, []
    if undecoded_tokens:
        yield piece


def require_settings(
    tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    """Raise RequestError for settings with which no model can generate."""
    if tokens < 1:
        raise RequestError(f"tokens={tokens} must be at least 1")
    if not 0 <= temperature < math.inf:
        raise RequestError(
            f"temperature={temperature} must be a finite number of at least 0 (the likeliest token)"
        )
    if top_k is not None and top_k < 1:
        raise RequestError(f"top_k={top_k} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise RequestError(f"top_p={top_p} must be a probability above 0 and at most 1")
    if not 0 <= seed < 2**63:
        raise RequestError(f"seed={seed} must lie in 0..2^63-1")


def require_search(beams: int, length_penalty: float) -> None:
    """Raise RequestError for settings with which no search is possible."""
    if beams < 1:
        raise RequestError(f"beams={beams} must be at least 1")
    if not 0 <= length_penalty <= 10:
        raise RequestError(f"length_penalty={length_penalty} must lie in 0 (none) to 10")
