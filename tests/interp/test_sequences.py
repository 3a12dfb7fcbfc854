"""Which tokens a layer's queries and keys are is what the shapes of its patterns say."""

from collections.abc import Callable

import pytest
import torch

from attnlab.interp.attention_taps import record_patterns
from attnlab.interp.sequences import processed_tokens, sequence_tokens, sequence_valid
from attnlab.layers import Axes
from attnlab.model.base import ENCODER, ENCODER_DECODER, Arrangement, Model
from attnlab.split import Batch
from tests.model.build import TOKENS, recurrent, transformer

BOTTLENECK = Arrangement(causal=False, encoder=True, latents=3)
MODELS: dict[str, Callable[[], Model]] = {
    "alone": lambda: transformer(ENCODER),
    "encoder-decoder": lambda: transformer(ENCODER_DECODER),
    "bottleneck": lambda: transformer(BOTTLENECK),
    "recurrent": lambda: recurrent(ENCODER_DECODER, attention="additive"),
    "differential": lambda: transformer(ENCODER_DECODER, mixer="differential"),
    "grouped": lambda: transformer(ENCODER_DECODER, mixer="grouped_query"),
}
SIZES = {"inputs": 8, "prefix": 5, "latents": 3}


@pytest.fixture
def asked() -> Batch:
    inputs, prefix = torch.randint(TOKENS, (2, 8)), torch.randint(TOKENS, (2, 5))
    valid, there = (torch.arange(size) < torch.tensor([[size], [2]]) for size in (8, 5))
    return Batch(inputs, prefix, None, valid, prefix, there)


@pytest.mark.parametrize("name", MODELS)
def test_a_pattern_has_the_sizes_of_the_sequences_that_are_named(name, asked):
    model = MODELS[name]().eval()
    given = asked if model.arrangement.encoder else Batch(asked.inputs, asked.inputs)
    with torch.no_grad(), record_patterns(model) as patterns:
        model(*given.model_inputs)
    assert set(patterns) == set(model.attention_layers()) != set()
    for layer, pattern in patterns.items():
        axes = layer.axes
        assert pattern.shape[2:] == (SIZES[axes.queries], SIZES[axes.keys]), layer
        assert axes.crosses == (axes.queries != axes.keys)
        assert model.axes_at(layer.path) == axes
        assert layer.num_heads == pattern.shape[1]
    crossing = {layer.axes for layer in patterns if layer.axes.crosses}
    assert crossing == {
        "bottleneck": {Axes("latents", "inputs"), Axes("prefix", "latents")},
        "alone": set(),
    }.get(name, {Axes("prefix", "inputs")})


def test_a_module_works_on_the_tokens_of_its_queries(asked):
    decoding = transformer(ENCODER_DECODER)
    for path, tokens, valid in (
        ("encoder.blocks.0.ffn", asked.inputs, asked.valid),
        ("blocks.1.ffn", asked.prefix, asked.prefix_valid),
        ("blocks.0.cross", asked.prefix, asked.prefix_valid),
    ):
        found = processed_tokens(decoding, path, asked)
        assert found[0] is tokens
        assert found[1] is valid
    whole = Batch(asked.inputs, asked.inputs)
    tokens, valid = processed_tokens(transformer(ENCODER), "blocks.0.ffn", whole)
    assert tokens is whole.inputs
    assert torch.equal(valid, torch.ones(2, 8, dtype=torch.bool))


def test_each_sequence_has_its_own_tokens_and_padding(asked):
    assert sequence_tokens("inputs", asked) is asked.inputs
    assert sequence_tokens("prefix", asked) is asked.prefix
    assert sequence_tokens("latents", asked) is None
    assert sequence_valid("inputs", asked, 8) is asked.valid
    assert sequence_valid("prefix", asked, 5) is asked.prefix_valid
    # Latents are never padding, and nothing is where none is said to be.
    whole = asked._replace(valid=None)
    for found, size in (
        (sequence_valid("latents", asked, 3), 3),
        (sequence_valid("inputs", whole, 8), 8),
    ):
        assert torch.equal(found, torch.ones(2, size, dtype=torch.bool))
