"""Each mixer's FLOPs are those of a formula of its own, whichever kernel or shape computes it."""

from collections.abc import Callable
from math import log2

import pytest
import torch
from torch import nn

from attnlab.mixer.adapter import Adapter
from attnlab.mixer.base import Mixer, build_mixer
from attnlab.model.cost import flops
from attnlab.position.base import Position
from tests.choices import choices
from tests.model.build import part

BATCH, HEADS, CHUNK = 2, 4, 32


def multihead(d: int, length: int) -> int:
    """Queries, keys, values and output; then every query with every key, and with every value."""
    return 2 * length * 4 * d * d + 2 * length**2 * 2 * d


def grouped_query(d: int, length: int) -> int:
    """Keys and values of half as many heads; the pattern is as large as ever."""
    return 2 * length * 3 * d * d + 2 * length**2 * 2 * d


def differential(d: int, length: int) -> int:
    """Twice as many patterns over keys half as wide, each of which mixes values of whole width."""
    return 2 * length * 4 * d * d + 2 * length**2 * (d + 2 * d)


def latent(d: int, length: int) -> int:
    rank = d // 2
    rotary = 2 * max(1, d // HEADS // 4)
    query, output = d * (d + HEADS * rotary), d * d
    compress, expand = d * (rank + rotary), rank * 2 * d
    scores, mixing = d + HEADS * rotary, d
    return 2 * length * (query + output + compress + expand) + 2 * length**2 * (scores + mixing)


def additive(d: int, length: int) -> int:
    """A product with a vector for each pair; the values are the inputs themselves."""
    return 2 * length * 3 * d * d + 2 * length**2 * 2 * d


def sliding_window(d: int, length: int) -> int:
    """Beyond two windows of 32, each query with the keys of its own block and the one before."""
    pairs = length**2
    if length > 64:
        pairs = sum(0 <= q // 32 - k // 32 <= 1 for q in range(length) for k in range(length))
    return 2 * length * 4 * d * d + 2 * pairs * 2 * d


def chunks(length: int) -> list[int]:
    return [min(CHUNK, length - begins) for begins in range(0, length, CHUNK)]


def summed(length: int, d_key: int, d_value: int, shared: int = HEADS) -> int:
    """Scores and mixing within each chunk; then a write and a read of the state at each position.

    `shared` are the heads that have scores of their own.
    """
    within = sum(c * c for c in chunks(length))
    states = HEADS * 2 * length * d_key * d_value
    return 2 * (within * (shared * d_key + HEADS * d_value) + states)


def linear_attention(d: int, length: int) -> int:
    return 2 * length * 4 * d * d + summed(length, d // HEADS, d // HEADS + 1)


def retention(d: int, length: int) -> int:
    return 2 * length * (6 + 2) * d * d + summed(length, d // HEADS, 2 * d // HEADS)


def selective_state_space(d: int, length: int) -> int:
    """All heads share what reads and what writes, 64 wide."""
    project = d * (2 * d + 2 * d + 2 * 64 + HEADS)
    return 2 * length * (project + 2 * d * d) + summed(length, 64, 2 * d // HEADS, shared=1)


def gated_linear(d: int, length: int) -> int:
    """Within a chunk scores of positions in different groups of 4 are products, others are not."""
    d_key, d_value = d // 2 // HEADS, d // HEADS
    project = 2 * d * d + 16 * d + 16 * d // 2 + d * d + d * d
    flops = 4 * length * d_key * d_value
    for c in chunks(length):
        apart = sum(q // 4 > k // 4 for q in range(c) for k in range(c))
        together = sum(q // 4 == k // 4 for q in range(c) for k in range(c))
        flops += 2 * apart * (d_key + d_value) + 2 * together * d_value
    return 2 * length * project + HEADS * flops


def replaced(length: int, d_key: int, d_value: int) -> int:
    """Within a chunk two squares of keys, a triangular solution for values and keys, and mixing;
    then three products with the state at each position.
    """
    within = sum(c * c for c in chunks(length))
    solution = d_value + d_key
    squares = 2 * 2 * d_key + solution + 2 * d_value
    return HEADS * (within * squares + 3 * 2 * length * d_key * d_value)


def delta_rule(d: int, length: int) -> int:
    project = 3 * d * d + HEADS * d + d * d
    return 2 * length * project + replaced(length, d // HEADS, d // HEADS)


def gated_delta(d: int, length: int) -> int:
    keys, values = 3 * d // 4, 3 * d // 2
    project = d * (2 * keys + values) + 2 * HEADS * d + d * values + values * d
    return 2 * length * project + replaced(length, keys // HEADS, values // HEADS)


def lstm(d: int, length: int) -> int:
    """Four gates, each of the input and of the state."""
    return 2 * length * (4 * 2 * d * d + d * d)


def min_lstm(d: int, length: int) -> int:
    return 2 * length * 4 * d * d


def short_convolution(d: int, length: int) -> int:
    return 2 * length * 2 * d * d


def long_convolution(d: int, length: int) -> int:
    """One transform there and one back; the filter and its transform are `once`."""
    return 2 * length * 4 * d * d + 2 * transform(d, length)


def transform(d: int, length: int) -> int:
    """Half of 5 N log N for each real signal, of twice the length (Frigo & Johnson 2005)."""
    return round(5 * d * 2 * length * log2(2 * length) / 2)


def once(name: str, d: int, length: int) -> int:
    """What does not grow with the batch."""
    if name != "long_convolution":
        return 0
    waves, hidden = 1 + 2 * 8, 32
    layers = waves * hidden + hidden * hidden + hidden * d
    return 2 * length * layers + transform(d, length)


FORMULAS: dict[str, Callable[[int, int], int]] = {
    "multihead": multihead,
    "single_head": multihead,
    "grouped_query": grouped_query,
    "differential": differential,
    "latent": latent,
    "additive": additive,
    "sliding_window": sliding_window,
    "linear_attention": linear_attention,
    "retention": retention,
    "selective_state_space": selective_state_space,
    "gated_linear": gated_linear,
    "delta_rule": delta_rule,
    "gated_delta": gated_delta,
    "lstm": lstm,
    "min_lstm": min_lstm,
    "short_convolution": short_convolution,
    "long_convolution": long_convolution,
}


def everything(name: str, d: int, length: int) -> int | None:
    """What costs otherwise where a position may see all; None where it is the same formula."""
    if name == "linear_attention":
        states = 2 * length * d // HEADS * (d // HEADS + 1)
        return 2 * length * 4 * d * d + 2 * HEADS * states
    if name == "sliding_window" and length > 64:
        near = sum(abs(q // 32 - k // 32) <= 1 for q in range(length) for k in range(length))
        return 2 * length * 4 * d * d + 2 * near * 2 * d
    return None


def counted(mixer: Mixer, d: int, length: int) -> int:
    return flops(mixer, torch.zeros(BATCH, length, d))


def test_every_mixer_has_a_formula():
    # A hybrid is the mixer of its layer, and lstm_additive is one.
    assert {*FORMULAS, "hybrid", "lstm_additive"} >= set(choices("model/mixer"))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_mixers_flops_are_those_of_its_formula(name, causal):
    wrong = []
    # Both sides of the borders where the path changes: 32 positions of a chunk, 64 tokens of a
    # pattern or of two windows, heads 32 wide; and lengths that fill no chunk and no window.
    for d in (32, 192):
        for length in (13, 64, 100):
            mixer = part("mixer", name)(d, Position(d, length), causal, 0)
            expected = None if causal else everything(name, d, length)
            expected = FORMULAS[name](d, length) if expected is None else expected
            expected = BATCH * expected + once(name, d, length)
            # A transform's logarithm is rounded to a whole number of operations.
            if abs(counted(mixer, d, length) - expected) > (4 if "long" in name else 0):
                wrong.append((d, length, counted(mixer, d, length), expected))
    assert wrong == []


HYBRID = ("lstm", "multihead")
"""The mixers of conf/model/mixer/hybrid.yaml, layer by layer."""


def test_a_hybrids_layer_costs_what_its_mixer_costs():
    d, length = 32, 50
    for layer, name in enumerate(HYBRID):
        hybrid = part("mixer", "hybrid")(d, Position(d, length), True, layer)
        inner = hybrid.mixer
        assert counted(hybrid, d, length) == counted(inner, d, length) > 0
        assert type(inner) is type(part("mixer", name)(d, Position(d, length), True, 0))
        assert counted(inner, d, length) == BATCH * FORMULAS[name](d, length)


def test_both_ways_cost_twice_and_an_adapter_its_module():
    d, length = 32, 50
    both = build_mixer(part("mixer", "lstm"), d, Position(d, length), False, 0)
    assert counted(both, d, length) == 2 * BATCH * lstm(d, length)
    adapter = Adapter(
        d, Position(d, length), True, 0, module=lambda d: nn.Linear(d, d), sees="past"
    )
    assert counted(adapter, d, length) == BATCH * 2 * length * d * d
