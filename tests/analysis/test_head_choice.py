"""Heads are chosen by numbers in every layer, or by the names that tables show."""

import pytest

from attnlab.analysis.head_choice import select_heads
from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer, Axes, HeadRef
from tests.refused_calls import refused_calls

LAYERS = [AttentionLayer(0, "blocks.0", 2, Axes()), AttentionLayer(1, "blocks.1", 3, Axes())]


@pytest.mark.parametrize(
    ("layers", "heads", "expected"),
    [
        (None, None, None),
        ("1", None, [HeadRef(1, 0), HeadRef(1, 1), HeadRef(1, 2)]),
        (None, "1", [HeadRef(0, 1), HeadRef(1, 1)]),
        ("1", "2,0", [HeadRef(1, 0), HeadRef(1, 2)]),
        (None, "L1H2", [HeadRef(1, 2)]),
        (None, "L1H2,L0H0", [HeadRef(1, 2), HeadRef(0, 0)]),
    ],
)
def test_numbers_are_of_each_layer_and_names_are_of_one(layers, heads, expected):
    assert select_heads(LAYERS, layers, heads) == expected


def test_what_is_no_head_of_the_model_is_refused():
    refused_calls(
        "heads.chosen.{}",
        {
            "layer": lambda: select_heads(LAYERS, "2", None),
            "head": lambda: select_heads(LAYERS, None, "2"),
            "name": lambda: select_heads(LAYERS, None, "L0H2"),
            "mixed": lambda: select_heads(LAYERS, None, "L0H1,2"),
            "twice": lambda: select_heads(LAYERS, "0", "L0H1"),
            "text": lambda: select_heads(LAYERS, None, "all"),
        },
        kind=RequestError,
    )
