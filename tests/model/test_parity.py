"""Our layers against independent implementations of the same equations."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attnlab.attend import Attend
from attnlab.mixer.multihead import MultiHead
from attnlab.mixer.single_head import SingleHead
from attnlab.model.base import DECODER, ENCODER
from attnlab.model.recurrent import Recurrent
from attnlab.position.base import Position
from attnlab.position.rope import RoPE
from attnlab.tap import record
from tests.model.law import law
from tests.prose import refuses

D_MODEL, LENGTH = 16, 7


def reference_attention(num_heads: int, causal: bool) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(D_MODEL, num_heads, batch_first=True).eval()


def run_reference(reference, x, valid, causal):
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if causal else None
    return reference(x, x, x, key_padding_mask=~valid, attn_mask=future, average_attn_weights=False)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", [SingleHead, MultiHead])
def test_attention_and_its_pattern_equal_torchs(kind, causal):
    mixer = kind(D_MODEL, Position(D_MODEL, LENGTH), causal).eval()
    num_heads = getattr(mixer, "num_heads", 1)
    reference = reference_attention(num_heads, causal)
    with torch.no_grad():
        if kind is SingleHead:
            parts = (mixer.query, mixer.key, mixer.value)
            reference.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
            reference.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        else:
            reference.in_proj_weight.copy_(mixer.query_key_value.weight)
            reference.in_proj_bias.copy_(mixer.query_key_value.bias)
        reference.out_proj.weight.copy_(mixer.output.weight)
        reference.out_proj.bias.copy_(mixer.output.bias)
    x = torch.randn(2, LENGTH, D_MODEL)
    valid = torch.ones(2, LENGTH, dtype=torch.bool)
    valid[1, 5:] = False
    expected, pattern = run_reference(reference, x, valid, causal)
    torch.testing.assert_close(mixer(x, valid)[valid], expected[valid], rtol=0, atol=1e-5)
    with record(mixer, "*pattern") as heard:
        mixer(x, valid)
    torch.testing.assert_close(heard["attend.pattern"][0], pattern[0], rtol=0, atol=1e-5)


@law((True, False), (1, 4, LENGTH), (True, False), (True, False))
def test_the_fused_and_the_explicit_path_agree(causal, num_queries, biased, padded):
    attend = Attend(causal, dropout=0.0, num_heads=3)
    query = torch.randn(2, 3, num_queries, 5)
    key, value = torch.randn(2, 2, 3, LENGTH, 5)
    bias = torch.randn(3, num_queries, LENGTH) if biased else None
    # The queries are the last positions, which padding at the end would leave with no key.
    valid = torch.arange(LENGTH)[None] >= torch.tensor([[0], [3]]) if padded else None
    if valid is not None and causal:
        valid[:, 0] = True
    fused, explicit = (
        path(query, key, value, bias, valid)
        for path in (attend._attend_fused, attend._attend_explicitly)
    )
    torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_the_recurrent_stack_equals_torchs_on_packed_sequences(causal):
    arrangement = DECODER if causal else ENCODER
    model = Recurrent(11, 5, LENGTH, arrangement, num_layers=2, d_model=8).eval()
    reference = nn.LSTM(8, 8, num_layers=2, bidirectional=not causal, batch_first=True)
    with torch.no_grad():
        suffix = {"forwards": "", "backwards": "_reverse"}
        for layer, ways in enumerate(model.layers):
            for way, cell in ways.named_children():
                for name, ours in cell.named_parameters():
                    theirs = name.replace("_l0", f"_l{layer}{suffix[way]}")
                    reference.get_parameter(theirs).copy_(ours)
    inputs, lengths = torch.randint(11, (3, LENGTH)), torch.tensor([7, 4, 1])
    valid = torch.arange(LENGTH) < lengths[:, None]
    packed = pack_padded_sequence(
        model.embedding(inputs), lengths, batch_first=True, enforce_sorted=False
    )
    expected = model.head(pad_packed_sequence(reference(packed)[0], batch_first=True)[0])
    torch.testing.assert_close(
        model(inputs, None, valid)[0][valid], expected[valid], rtol=0, atol=1e-5
    )


def test_rotary_scores_depend_on_the_distance_alone():
    rope = RoPE(8, 100)
    query, key = torch.randn(2, 1, 1, 1, 8)

    def score(query_at: int, key_at: int) -> float:
        turned = rope.rotate(query, torch.tensor([query_at]))
        return (turned * rope.rotate(key, torch.tensor([key_at]))).sum().item()

    assert score(5, 3) == pytest.approx(score(90, 88), abs=1e-5)
    assert score(5, 3) != pytest.approx(score(5, 2), abs=1e-3)


def test_heads_that_do_not_split_the_width_are_refused():
    with refuses(ValueError, "model.heads_do_not_split"):
        MultiHead(16, Position(16, 1), True, num_heads=5)


def test_a_rotary_head_of_odd_width_is_refused():
    with refuses(ValueError, "model.odd_rotary_head"):
        RoPE(3, 5).rotate(torch.randn(1, 1, 5, 3), torch.arange(5))
