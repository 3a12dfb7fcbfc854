"""Blocks against torch's own layers, whose weights they are given, and against their equations."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.ffn.expert_choice import ExpertChoice
from attnlab.ffn.mlp import MLP
from attnlab.ffn.none import NoFFN
from attnlab.mixer.lstm import LSTM
from attnlab.mixer.multihead import MultiHead
from attnlab.model.block import Block, Parallel, PostNorm, PreNorm
from attnlab.position.base import Position
from tests.prose import refuses

WIDTH, LENGTH = 16, 7


def block(kind: type[Block], causal: bool = False, reads: bool = False, **knobs) -> Block:
    made = kind(
        WIDTH, Position(WIDTH, LENGTH), causal, MultiHead, MLP, 0, reads, cross=MultiHead, **knobs
    )
    for name, weights in made.named_parameters():
        if "norm" in name:
            nn.init.normal_(weights)
    return made.eval()


def copy_attention(theirs: nn.MultiheadAttention, ours) -> None:
    theirs.in_proj_weight.copy_(ours.query_key_value.weight)
    theirs.in_proj_bias.copy_(ours.query_key_value.bias)
    theirs.out_proj.weight.copy_(ours.output.weight)
    theirs.out_proj.bias.copy_(ours.output.bias)


def copy_rest(theirs, ours, norms: tuple[str, ...]) -> None:
    copies = [(theirs.linear1, ours.ffn.expand), (theirs.linear2, ours.ffn.contract)]
    for number, name in enumerate(norms, start=1):
        copies.append((getattr(theirs, f"norm{number}"), getattr(ours, name)))
    for to, source in copies:
        to.weight.copy_(source.weight)
        to.bias.copy_(source.bias)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", [PreNorm, PostNorm])
def test_a_block_equals_torchs_encoder_layer(kind, causal):
    ours = block(kind, causal)
    theirs = nn.TransformerEncoderLayer(
        *(WIDTH, 4, 4 * WIDTH, 0.0, "gelu"), batch_first=True, norm_first=kind is PreNorm
    ).eval()
    with torch.no_grad():
        copy_attention(theirs.self_attn, ours.mixer)
        copy_rest(theirs, ours, ("mixer_norm", "ffn_norm"))
    x, future = torch.randn(2, LENGTH, WIDTH), None
    if causal:
        future = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    torch.testing.assert_close(ours(x)[0], theirs(x, future), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [PreNorm, PostNorm])
def test_a_block_that_reads_equals_torchs_decoder_layer(kind):
    ours = block(kind, causal=True, reads=True)
    theirs = nn.TransformerDecoderLayer(
        *(WIDTH, 4, 4 * WIDTH, 0.0, "gelu"), batch_first=True, norm_first=kind is PreNorm
    ).eval()
    with torch.no_grad():
        copy_attention(theirs.self_attn, ours.mixer)
        copy_attention(theirs.multihead_attn, ours.cross)
        copy_rest(theirs, ours, ("mixer_norm", "cross_norm", "ffn_norm"))
    x, memory = torch.randn(2, LENGTH, WIDTH), torch.randn(2, 5, WIDTH)
    valid = torch.arange(5)[None] < torch.tensor([[5], [3]])
    expected = theirs(
        x, memory, nn.Transformer.generate_square_subsequent_mask(LENGTH), None, None, ~valid
    )
    torch.testing.assert_close(ours(x, None, memory, valid)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reads", [True, False])
def test_a_parallel_block_adds_both_from_one_norm(reads):
    ours = block(Parallel, reads=reads)
    x, memory = torch.randn(2, LENGTH, WIDTH), torch.randn(2, 5, WIDTH)
    normed = ours.mixer_norm(x)
    expected = x + ours.mixer(normed) + ours.ffn(normed)[0]
    if ours.cross is not None and ours.cross_norm is not None:
        expected = expected + ours.cross.cross_attend(ours.cross_norm(x), memory)[0]
    torch.testing.assert_close(ours(x, None, memory if reads else None)[0], expected)
    assert not list(ours.ffn_norm.parameters())


def test_rms_norm_divides_by_the_root_mean_square():
    ours, x = block(PreNorm, norm="rms"), torch.randn(2, LENGTH, WIDTH)
    scale = ours.mixer_norm.weight
    assert isinstance(scale, Tensor)
    expected = x / x.square().mean(-1, keepdim=True).sqrt() * scale
    torch.testing.assert_close(ours.mixer_norm(x), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_without_a_network_has_no_norm_for_it():
    for kind in (PreNorm, PostNorm, Parallel):
        made = kind(WIDTH, Position(WIDTH, 1), True, MultiHead, NoFFN)
        assert not list(made.ffn_norm.parameters())


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("norm", lambda: block(PreNorm, norm="batch")),
        (
            "competing_tokens",
            lambda: PreNorm(WIDTH, Position(WIDTH, 1), True, MultiHead, ExpertChoice),
        ),
        (
            "cross",
            lambda: PreNorm(
                *(WIDTH, Position(WIDTH, 1), True, MultiHead, MLP, 0, True), cross=LSTM
            ),
        ),
    ],
)
def test_an_impossible_block_is_refused(key, build):
    with refuses(ValueError, f"model.block.{key}"):
        build()
