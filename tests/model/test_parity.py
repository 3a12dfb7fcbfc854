"""Our layers against independent implementations of the same equations."""

import math

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attnlab.ffn.mlp import MLP
from attnlab.ffn.moe import MoE
from attnlab.mixer.base import Attend
from attnlab.mixer.multihead import MultiHead
from attnlab.mixer.single_head import SingleHead
from attnlab.model.cost import flops
from attnlab.model.recurrent import Recurrent
from attnlab.position.base import Position
from attnlab.position.rope import RoPE
from attnlab.tap import record

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


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("num_queries", [1, 4, LENGTH])
@pytest.mark.parametrize("causal", [True, False])
def test_the_fused_and_the_explicit_path_agree(causal, num_queries, biased, padded):
    attend = Attend(causal, dropout=0.0)
    query = torch.randn(2, 3, num_queries, 5)
    key, value = torch.randn(2, 2, 3, LENGTH, 5)
    bias = torch.randn(3, num_queries, LENGTH) if biased else None
    # The queries are the last positions, which padding at the end would leave with no key.
    valid = torch.arange(LENGTH)[None] >= torch.tensor([[0], [3]]) if padded else None
    if valid is not None and causal:
        valid[:, 0] = True
    fused, explicit = (
        path(query, key, value, bias, valid) for path in (attend._fused, attend._explicit)
    )
    torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_the_recurrent_stack_equals_torchs_on_packed_sequences(causal):
    model = Recurrent(11, 5, LENGTH, causal, num_layers=2, d_model=8).eval()
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


def naive_moe(moe: MoE, x: torch.Tensor) -> torch.Tensor:
    """One token at a time, from the papers' equations."""
    out = torch.zeros_like(x)
    for b, s in ((b, s) for b in range(x.shape[0]) for s in range(x.shape[1])):
        token = x[b, s]
        probability = torch.softmax(moe.router.weight @ token, 0)
        best = sorted(range(moe.num_experts), key=lambda e: -probability[e])[: moe.top_k]
        share = sum(probability[e] for e in best) if moe.top_k > 1 else 1.0
        for e in best:
            hidden = token @ moe.expand[e]
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            out[b, s] += probability[e] / share * (hidden @ moe.contract[e])
    return out


@pytest.mark.parametrize("top_k", [1, 2, 3, 8])
def test_the_experts_equal_a_loop_over_tokens(top_k):
    moe = MoE(D_MODEL, num_experts=8, top_k=top_k).eval()
    x = torch.randn(2, LENGTH, D_MODEL)
    torch.testing.assert_close(moe(x)[0], naive_moe(moe, x), rtol=0, atol=1e-5)


def test_an_unselected_expert_contributes_exactly_nothing():
    moe = MoE(D_MODEL, num_experts=4, top_k=1)
    with torch.no_grad():
        moe.router.weight.zero_()[2] = 1.0
        x = torch.rand(2, LENGTH, D_MODEL)
        before = moe(x)[0]
        for weights in (moe.expand, moe.contract):
            weights[[0, 1, 3]] = torch.nan
        assert torch.equal(moe(x)[0], before)


def test_an_unselected_expert_gets_exactly_no_gradient():
    moe = MoE(D_MODEL, num_experts=4, top_k=1)
    with torch.no_grad():
        moe.router.weight.zero_()[2] = 1.0
    moe(torch.rand(2, LENGTH, D_MODEL))[0].square().sum().backward()
    for weights in (moe.expand, moe.contract):
        assert weights.grad is not None
        assert weights.grad[[0, 1, 3]].abs().sum() == 0
        assert weights.grad[2].abs().sum() > 0


def test_an_unselected_expert_is_not_computed():
    dense, sparse = MLP(D_MODEL, expansion=2.0), MoE(D_MODEL, num_experts=8, top_k=1)
    x = torch.randn(1, LENGTH, D_MODEL)
    router = 2 * LENGTH * D_MODEL * 8
    assert flops(sparse, x) == flops(dense, x) + router


def test_the_router_learns_from_the_output_with_one_expert_a_token():
    moe = MoE(D_MODEL, num_experts=4, top_k=1, balance=0.0)
    moe(torch.randn(2, LENGTH, D_MODEL))[0].square().sum().backward()
    assert moe.router.weight.grad is not None
    assert moe.router.weight.grad.abs().sum() > 0


def test_the_balance_loss_is_its_weight_for_an_even_load_and_more_for_an_uneven_one():
    moe = MoE(8, num_experts=4, top_k=1, balance=0.01)
    with torch.no_grad():
        moe.router.weight.zero_()
        moe.router.weight[torch.arange(4), torch.arange(4)] = 1.0
    even = rearrange(50 * torch.eye(8)[:4], "s d -> 1 s d")
    uneven = even[:, :1].expand(1, 4, 8)
    assert moe(even)[1]["balance"].item() == pytest.approx(0.01)
    assert moe(uneven)[1]["balance"].item() == pytest.approx(0.04)
    # Padding has no say in it.
    both = torch.cat((even, uneven), dim=1)
    valid = torch.arange(8)[None] < 4
    assert moe(both, valid)[1]["balance"].item() == pytest.approx(0.01)


def test_tokens_above_capacity_are_dropped_in_training_alone_and_counted():
    moe = MoE(8, num_experts=4, top_k=1, capacity=1.0)
    with torch.no_grad():
        moe.router.weight.zero_()[0] = 1.0
    x = torch.rand(1, 8, 8)
    with record(moe, "drops") as heard:
        trained = moe.train()(x)[0]
    # 8 tokens and 4 experts make room for 2 at each; all 8 ask for the first.
    assert (trained.abs().sum(-1) > 0).sum() == 2
    assert heard["drops"].item() == pytest.approx(6 / 8)
    assert (moe.eval()(x)[0].abs().sum(-1) > 0).all()


def test_the_load_is_the_share_of_assignments():
    moe = MoE(D_MODEL, num_experts=4, top_k=2)
    x = torch.randn(3, LENGTH, D_MODEL)
    with record(moe) as heard:
        moe(x)
    best = F.one_hot((x @ moe.router.weight.T).topk(2).indices, 4).float()
    torch.testing.assert_close(heard["load"], best.mean(dim=(0, 1)).sum(0) / 2)


def test_rotary_scores_depend_on_the_distance_alone():
    rope = RoPE(8, 100)
    query, key = torch.randn(2, 1, 1, 1, 8)

    def score(query_at: int, key_at: int) -> float:
        turned = rope.rotate(query, torch.tensor([query_at]))
        return (turned * rope.rotate(key, torch.tensor([key_at]))).sum().item()

    assert score(5, 3) == pytest.approx(score(90, 88), abs=1e-5)
    assert score(5, 3) != pytest.approx(score(5, 2), abs=1e-3)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MultiHead(16, Position(16, 1), True, num_heads=5), "num_heads=5"),
        (lambda: MoE(16, num_experts=2, top_k=3), "top_k=3"),
        (lambda: MoE(12), "d_model=12"),
        (lambda: MoE(16, capacity=0.0), "capacity=0.0"),
        (lambda: MLP(16, expansion=0.0), "expansion=0.0"),
    ],
)
def test_an_impossible_layer_is_refused_in_words(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_rotary_head_of_odd_width_is_refused():
    with pytest.raises(ValueError, match="d_head=3"):
        RoPE(3, 5).rotate(torch.randn(1, 1, 5, 3), torch.arange(5))
