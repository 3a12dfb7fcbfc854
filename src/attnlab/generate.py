"""Text from a causal model: one token after the other, each drawn from what the model expects."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from attnlab.errors import RequestError
from attnlab.model.base import Model

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a decoder puts where a character's bytes are not all there."""


def generate(
    model: Model,
    prompt: Sequence[int],
    pick: Callable[[Float[Tensor, " token"]], int],
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[int]:
    """Give the tokens that follow a prompt, without end; `pick` takes each from its logits.

    A text that is longer than the model's `max_length` is read through a window: its last tokens
    afresh, for each new one. A cache could not be shifted, since it counts positions from where
    the text began.
    """
    text, state = list(prompt), None
    longest = model.max_length
    # Only around the model, so that whoever takes the tokens computes as before.
    with torch.no_grad(), precision():
        if longest is None or len(text) <= longest:
            for at, token in enumerate(text[:-1]):
                _, state = model.step(torch.tensor([[token]]), at, state)
    while True:
        with torch.no_grad(), precision():
            if longest is None or len(text) <= longest:
                logits, state = model.step(torch.tensor([text[-1:]]), len(text) - 1, state)
            else:
                window = torch.tensor([text[-longest:]])
                logits, _ = model(window, torch.tensor([[longest - 1]]))
        text.append(pick(logits[0, -1]))
        yield text[-1]


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
