"""Text from a causal model, token by token: drawn from what it expects, or searched for."""

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

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a decoder puts where a character's bytes are not all there."""


def generate(
    model: Model,
    prompt: Sequence[int],
    pick: Callable[[Float[Tensor, " token"]], int],
    precision: Callable[[], AbstractContextManager] = nullcontext,
    state: Any = None,
) -> Iterator[int]:
    """Give the tokens that follow a prompt, without end; `pick` takes each from its logits.

    A text that is longer than the model's `max_length` is read through a window: its last tokens
    afresh, for each new one. A cache could not be shifted, since it counts positions from where
    the text began. A model with an encoder begins from the `state` that its `start` gives.
    """
    longest, seen = model.max_length, len(prompt)
    # Without a window, the state knows all but the last token.
    tail = deque(prompt, 1 if longest is None else longest)
    # Only around the model, so that whoever takes the tokens computes as before.
    with torch.no_grad(), precision():
        if longest is None or seen <= longest:
            for at, token in enumerate(prompt[:-1]):
                _, state = model.step(torch.tensor([[token]]), at, state)
    while True:
        with torch.no_grad(), precision():
            if longest is None or seen <= longest:
                logits, state = model.step(torch.tensor([[tail[-1]]]), seen - 1, state)
            else:
                state = None
                logits, _ = model(torch.tensor([[*tail]]), torch.tensor([[longest - 1]]))
        tail.append(pick(logits[0, -1]))
        seen += 1
        yield tail[-1]


class Hypothesis(NamedTuple):
    """An answer that a search found."""

    tokens: list[int]
    """Without the end."""
    finished: bool
    """Whether the end follows; if not, the answer is as long as it may be."""
    log_probability: float
    """Of the tokens, and of the end where it follows (nats)."""
    score: float
    """What the answer is ranked by."""


def search(
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
    """Find answers of a model with an encoder by beam search (Sutskever et al. 2014, sec. 3.2).

    Of all continuations, the `beams` likeliest remain at each step; one that ends leaves the beam
    and is kept, as is one of `longest` tokens. The best are given, by the log-probability over
    ((5 + n) / 6)^length_penalty for n tokens, the end included (Wu et al. 2016, eq. 14, without
    coverage). `begin` opens every answer and stands in none.
    """

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    with torch.no_grad(), precision():
        state = model.start(source)
    beam, totals = [[begin]], torch.zeros(1, dtype=torch.float64)
    found: list[Hypothesis] = []
    for at in range(longest):
        with torch.no_grad(), precision():
            logits, state = model.step(torch.tensor([text[-1:] for text in beam]), at, state)
        each = logits[:, -1].double().log_softmax(dim=-1)
        each[:, begin] = -torch.inf
        ways = (rearrange(totals, "b -> b 1") + each).flatten()
        # As in a draw, the lower number comes first among equals.
        order = ways.argsort(descending=True, stable=True)[: min(beams, len(ways) - len(beam))]
        totals, parents, tokens = ways[order], order // each.shape[1], order % each.shape[1]
        texts = [[*beam[p], t] for p, t in zip(parents.tolist(), tokens.tolist(), strict=True)]
        over = (tokens == end) | (at + 1 == longest)
        for row in over.nonzero().flatten().tolist():
            text, total, finished = texts[row][1:], float(totals[row]), texts[row][-1] == end
            text = text[:-1] if finished else text
            found.append(Hypothesis(text, finished, total, total / penalty(at + 1)))
        found.sort(key=lambda hypothesis: -hypothesis.score)
        going = (~over).nonzero().flatten()
        beam, totals, parents = [texts[row] for row in going], totals[going], parents[going]
        enough = found[beams - 1].score if len(found) >= beams else -math.inf
        # A log-probability only falls, and the longest answer has the largest penalty.
        if not beam or totals[0] / penalty(longest) <= enough:
            break
        state = tree_map_only(Tensor, partial(torch.index_select, dim=0, index=parents), state)
    return found[:beams]


def choose(
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
    """The probability of each token: by temperature, then by `top_k`, then by `top_p`.

    The logits are divided by the temperature (Ackley et al. 1985); at 0 the likeliest token has it
    all. The `top_k` likeliest remain (Fan et al. 2018). Of them, with probabilities that sum to 1
    again, the nucleus remains: the smallest set that reaches `top_p`, the token that crosses it
    included (Holtzman et al. 2020, sec. 3.1). Among equals the lower number comes first.
    """
    exact = logits.double()
    order = exact.argsort(descending=True, stable=True)
    if temperature == 0:
        top_k, temperature = 1, 1.0
    # The largest is 0 before the division, so that a small temperature overflows nowhere but to 0.
    ranked = ((exact - exact.max())[order] / temperature).softmax(dim=0)[:top_k]
    if top_p is not None:
        reached = ranked.cumsum(dim=0) / ranked.sum()
        ranked = ranked[: 1 + int((reached[:-1] < top_p).sum())]
    kept = order[: len(ranked)]
    return torch.zeros_like(exact).index_copy(0, kept, ranked / ranked.sum())


def pieces(
    numbers: Iterable[int], prompt: Sequence[int], write: Callable[[Sequence[int]], str]
) -> Iterator[str]:
    """Put the tokens after a prompt to text as they come; half a character waits for its rest."""
    before, held, piece = list(prompt), [], ""
    for number in numbers:
        held.append(number)
        piece = write([*before, *held])[len(write(before)) :]
        if not piece.endswith(HALF):
            yield piece
            before, held = held, []
    if held:
        yield piece


def require_settings(
    tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    """Refuse settings that no model can generate with."""
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
    """Refuse what no search can be made with."""
    if beams < 1:
        raise RequestError(f"beams={beams} must be at least 1")
    if not 0 <= length_penalty <= 10:
        raise RequestError(f"length_penalty={length_penalty} must lie in 0 (none) to 10")
