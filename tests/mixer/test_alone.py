"""A mixer stands alone, as any nn.Module: its width is all that it needs."""

import pytest
import torch
from torch import nn

from attnlab.mixer.multihead import MultiHead
from attnlab.model.base import DECODER
from attnlab.model.transformer import Transformer
from attnlab.position.learned import Learned
from attnlab.position.rope import RoPE
from tests.choices import choices
from tests.model.build import LENGTH, WIDTH, part, transformer
from tests.model.law import law
from tests.prose import refuses
from tests.unchecked import unchecked_types


@law(choices("model/mixer"))
def test_a_mixer_of_a_width_is_that_of_a_causal_model_without_positions(name):
    alone = part("mixer", name)(WIDTH).eval()
    model = transformer(DECODER, mixer=name, position="none").eval()
    assert isinstance(model, Transformer)
    in_model = model.blocks[0].get_submodule("mixer")
    alone.load_state_dict(in_model.state_dict())
    x = torch.randn(2, LENGTH, WIDTH)
    mixed = alone(x)
    assert mixed.shape == x.shape
    torch.testing.assert_close(mixed, in_model(x), rtol=0, atol=0)
    # As its class, of which every knob has a default that its YAML states.
    if name not in ("hybrid", "lstm_additive"):
        assert part("mixer", name).func(WIDTH)(x).shape == x.shape


def test_a_mixer_is_one_module_among_others_and_takes_a_scheme_of_positions():
    x = torch.randn(2, LENGTH, WIDTH)
    stack = nn.Sequential(nn.LayerNorm(WIDTH), MultiHead(WIDTH, RoPE(WIDTH, LENGTH)))
    stack(x).sum().backward()
    assert all(weights.grad is not None for weights in stack.parameters())
    sees_all = MultiHead(WIDTH, causal=False)
    later = x.clone()
    later[:, -1] += 1
    assert not torch.equal(sees_all(x)[:, 0], sees_all(later)[:, 0])
    assert torch.equal(stack(x)[:, 0], stack(later)[:, 0])


@pytest.mark.parametrize("position", [4, "rope", RoPE])
def test_what_is_no_scheme_of_positions_is_refused(position):
    with unchecked_types(), pytest.raises(TypeError, match="knobs are given by name"):
        MultiHead(WIDTH, position)


def test_positions_beyond_the_learned_ones_are_refused():
    at = torch.arange(LENGTH)
    with refuses(ValueError, "position.too_long"):
        Learned(WIDTH, 4).embed(torch.randn(1, LENGTH, WIDTH), at)
