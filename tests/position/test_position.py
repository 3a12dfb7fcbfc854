"""The position schemes against closed forms and other implementations."""

import math
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from attnlab.mixer.multihead import MultiHead
from attnlab.position.alibi import ALiBi
from attnlab.position.base import Position
from attnlab.position.relative_bias import RelativeBias
from attnlab.position.rope import RoPE
from attnlab.position.sinusoidal import Sinusoidal
from tests.choices import choices
from tests.model.build import part
from tests.model.law import law
from tests.prose import refuses

LENGTH = 300
METHODS = {"embed", "rotate", "bias"}
with_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="needs transformers (pip install attnlab[bench])"
)
# What transformers does at its import is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def everywhere(position: Position, num_heads: int, causal: bool) -> Tensor:
    at = torch.arange(LENGTH)
    bias = position.bias(num_heads, at, at, causal)
    assert bias is not None
    return bias


@law(choices("model/position"))
def test_a_scheme_marks_what_it_overrides(name):
    scheme = part("position", name).func
    overridden = {m for m in METHODS if getattr(scheme, m) is not getattr(Position, m)}
    assert overridden == ({scheme.signal} - {None})


@law((1, 7, 16))
def test_sinusoids_are_the_papers(d_model):
    at = torch.tensor([0, 1, 5, 99, 5000])
    x = torch.randn(2, len(at), d_model)
    waves = torch.zeros(len(at), d_model)
    for row, position in enumerate(at.tolist()):
        for channel in range(d_model):
            angle = position / 10_000 ** (2 * (channel // 2) / d_model)
            waves[row, channel] = 0.5 * (math.cos(angle) if channel % 2 else math.sin(angle))
    # Position 5000 is far beyond the longest sequence; float32 knows its angle to 2e-4.
    ours = Sinusoidal(d_model, 10, amplitude=0.5).embed(x, at)
    torch.testing.assert_close(ours[:, :4], (x + waves)[:, :4], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours, x + waves, rtol=0, atol=3e-4)


def test_sinusoids_are_exact_in_low_precision_too():
    at, x = torch.tensor([1000, 1001]), torch.zeros(1, 2, 16)
    scheme = Sinusoidal(16, 10, amplitude=1.0)
    torch.testing.assert_close(
        scheme.embed(x.bfloat16(), at).float(), scheme.embed(x, at), rtol=0, atol=4e-3
    )


def paper_slopes(num_heads: int) -> list[float]:
    """Press et al. 2022, sec. 3, and their code on numbers that are no power of two."""
    if num_heads & (num_heads - 1) == 0:
        return [2 ** (-8 * (i + 1) / num_heads) for i in range(num_heads)]
    below = 1 << (num_heads.bit_length() - 1)
    return paper_slopes(below) + paper_slopes(2 * below)[::2][: num_heads - below]


@law((1, 2, 3, 4, 6, 8, 12, 16), (True, False))
def test_alibi_is_the_papers(num_heads, causal):
    at = torch.arange(LENGTH)
    distance = (at[:, None] - at).abs()
    expected = torch.stack([-slope * distance for slope in paper_slopes(num_heads)])
    torch.testing.assert_close(everywhere(ALiBi(8, LENGTH), num_heads, causal), expected)


def test_eight_alibi_heads_fall_by_powers_of_a_half():
    bias = everywhere(ALiBi(8, LENGTH), 8, True)
    assert bias[:, 1, 0].tolist() == [-(0.5**i) for i in range(1, 9)]


@with_transformers
@law((4, 6, 12))
def test_alibi_is_blooms(num_heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    # Theirs counts keys from the start, which a softmax cannot tell from ours.
    theirs = build_alibi_tensor(torch.ones(1, LENGTH), num_heads, torch.float32)
    ours = everywhere(ALiBi(8, LENGTH), num_heads, True)
    torch.testing.assert_close((ours - ours[..., :1])[:, -1:], theirs, rtol=0, atol=1e-4)


@with_transformers
@law([(32, 128), (8, 20), (16, 64)], (True, False))
def test_learned_biases_are_t5s(buckets, causal):
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    num_buckets, max_distance = buckets
    sizes: Any = {
        "d_model": 12,
        "num_heads": 3,
        "relative_attention_num_buckets": num_buckets,
        "relative_attention_max_distance": max_distance,
        "is_decoder": causal,
    }
    theirs: Any = T5Attention(T5Config(**sizes), has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(12, LENGTH, num_buckets=num_buckets, max_distance=max_distance)
    ours.prepare_heads(3, 4)
    assert ours.table is not None
    with torch.no_grad():
        theirs.relative_attention_bias.weight.copy_(ours.table)
    expected = theirs.compute_bias(LENGTH, LENGTH)[0]
    assert torch.equal(everywhere(ours, 3, causal), expected)


@law([ALiBi, RelativeBias], (True, False))
def test_a_later_step_has_its_row_of_the_whole(scheme, causal):
    position = scheme(8, LENGTH)
    position.prepare_heads(4, 4)
    row = position.bias(4, torch.tensor([200]), torch.arange(150, 201), causal)
    assert torch.equal(row, everywhere(position, 4, causal)[:, 200:201, 150:201])


def test_layers_share_one_table_of_biases():
    position = RelativeBias(16, LENGTH)
    assert list(position.parameters()) == []
    layers = [MultiHead(16, position, True) for _ in range(2)]
    (table,) = position.parameters()
    assert table.shape == (32, 4)
    out = torch.randn(1, 40, 16)
    for layer in layers:
        out = layer(out)
    out.sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum() > 0


def test_layers_with_other_heads_cannot_share_the_biases():
    position = RelativeBias(16, LENGTH)
    MultiHead(16, position, True, num_heads=4)
    with refuses(ValueError, "position.layers_differ"):
        MultiHead(16, position, True, num_heads=2)
    at = torch.arange(3)
    with refuses(ValueError, "position.other_heads"):
        position.bias(2, at, at, True)
    with refuses(ValueError, "position.serves_nobody"):
        RelativeBias(16, LENGTH).bias(4, at, at, True)


@pytest.mark.parametrize(
    ("key", "knobs"),
    [
        ("odd", {"num_buckets": 6}),
        ("none", {"num_buckets": 0}),
        ("distance", {"num_buckets": 32, "max_distance": 16}),
    ],
)
def test_impossible_buckets_are_refused(key, knobs):
    with refuses(ValueError, f"position.buckets.{key}"):
        RelativeBias(16, LENGTH, **knobs)


def test_one_distance_beyond_those_with_a_bucket_of_their_own_is_enough():
    assert RelativeBias(16, LENGTH, num_buckets=32, max_distance=17).max_distance == 17


@pytest.mark.parametrize(
    ("mixer", "knobs"),
    [
        ("latent", {"num_heads": 4, "d_rotary": 3}),
        ("differential", {"num_heads": 2}),
        ("retention", {"num_heads": 4}),
        ("multihead", {"num_heads": 4}),
    ],
)
def test_a_rotated_width_that_has_no_pairs_is_refused_when_it_is_built(mixer, knobs):
    build = part("mixer", mixer)
    with refuses(ValueError, "position.odd_rotated_width"):
        build(12, RoPE(12, LENGTH), True, **knobs)


def test_the_width_that_is_rotated_is_the_one_that_counts():
    assert part("mixer", "latent")(12, RoPE(12, LENGTH), True, num_heads=4)
