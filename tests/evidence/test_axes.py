"""Which tokens a layer's queries and keys are is what the shapes of its patterns say."""

from collections.abc import Callable

import pytest
import torch

from attnlab.evidence.axes import axes, stated_heads, tokens_of, valid_of
from attnlab.model.base import ENCODER, ENCODER_DECODER, Arrangement, Model
from attnlab.split import Batch
from attnlab.tap import record, taps
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
    with torch.no_grad(), record(model, "*.pattern") as heard:
        model(*given.given)
    assert len(heard) == len(taps(model, "*.pattern")) > 0
    for path, pattern in heard.items():
        found = axes(model, path)
        assert pattern.shape[2:] == (SIZES[found.queries], SIZES[found.keys]), path
        assert found.across == (found.queries != found.keys)
        assert axes(model, path.removesuffix(".pattern")) == found
        assert stated_heads(model)[path.removesuffix(".pattern")] in (pattern.shape[1], None)
    crossing = {axes(model, path) for path in heard if axes(model, path).across}
    assert crossing == {
        "bottleneck": {("latents", "inputs"), ("prefix", "latents")},
        "alone": set(),
    }.get(name, {("prefix", "inputs")})


def test_each_sequence_has_its_own_tokens_and_padding(asked):
    assert tokens_of("inputs", asked) is asked.inputs
    assert tokens_of("prefix", asked) is asked.prefix
    assert tokens_of("latents", asked) is None
    assert valid_of("inputs", asked, 8) is asked.valid
    assert valid_of("prefix", asked, 5) is asked.prefix_valid
    # Latents are never padding, and nothing is where none is said to be.
    whole = asked._replace(valid=None)
    for found, size in ((valid_of("latents", asked, 3), 3), (valid_of("inputs", whole, 8), 8)):
        assert torch.equal(found, torch.ones(2, size, dtype=torch.bool))
