"""Attention's FLOPs are those of its formula, whichever kernel computes it."""

import pytest
import torch

from attnlab.mixer.differential import Differential
from attnlab.mixer.grouped_query import GroupedQuery
from attnlab.mixer.latent import Latent
from attnlab.mixer.multihead import MultiHead
from attnlab.mixer.single_head import SingleHead
from attnlab.model.cost import flops
from attnlab.position.base import Position

BATCH = 2


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
    heads, rank = 4, d // 2
    rotary = 2 * max(1, d // heads // 4)
    query, output = d * (d + heads * rotary), d * d
    compress, expand = d * (rank + rotary), rank * 2 * d
    scores, mixing = d + heads * rotary, d
    return 2 * length * (query + output + compress + expand) + 2 * length**2 * (scores + mixing)


FORMULAS = {
    "multihead": (MultiHead, multihead),
    "single_head": (SingleHead, multihead),
    "grouped_query": (GroupedQuery, grouped_query),
    "differential": (Differential, differential),
    "latent": (Latent, latent),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_an_attentions_flops_are_those_of_its_formula(name, causal):
    kind, formula = FORMULAS[name]
    wrong = []
    # Both sides of the borders where the path changes: 64 tokens, and heads 32 wide.
    for d in (32, 192):
        for length in (16, 64, 96):
            mixer = kind(d, Position(d, length), causal)
            counted = flops(mixer, torch.zeros(BATCH, length, d))
            if counted != BATCH * formula(d, length):
                wrong.append((d, length, counted, BATCH * formula(d, length)))
    assert wrong == []
