"""Feed-forward networks against independent implementations of the same equations."""

import math
from importlib.util import find_spec

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attnlab.ffn.expert_choice import ExpertChoice
from attnlab.ffn.mlp import MLP
from attnlab.ffn.moe import MoE
from attnlab.ffn.swiglu import SwiGLU
from attnlab.model.base import parameters
from attnlab.model.cost import flops
from attnlab.tap import record
from tests.choices import choices
from tests.model.build import part
from tests.model.law import law
from tests.prose import refuses

D_MODEL, LENGTH = 16, 7
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="needs transformers (pip install attnlab[bench])"
)
# What the packages do at their import is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@law(("gelu", "relu", "silu"))
def test_the_dense_network_equals_torchs_modules(activation):
    mlp = MLP(D_MODEL, activation=activation)
    bend = {"gelu": nn.GELU(), "relu": nn.ReLU(), "silu": nn.SiLU()}[activation]
    x = torch.randn(2, LENGTH, D_MODEL)
    assert torch.equal(mlp(x)[0], nn.Sequential(mlp.expand, bend, mlp.contract)(x))


@needs_transformers
@pytest.mark.parametrize("bias", [True, False])
def test_the_gated_network_equals_llamas(bias):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    ours = SwiGLU(D_MODEL, bias=bias)
    d_ffn = ours.expand.out_features
    config = LlamaConfig(
        hidden_size=D_MODEL, intermediate_size=d_ffn, mlp_bias=bias, num_attention_heads=2
    )
    theirs = LlamaMLP(config)
    names = {"gate": "gate_proj", "expand": "up_proj", "contract": "down_proj"}
    kinds = ("weight", "bias") if bias else ("weight",)
    pairs = [(layer, kind) for layer in names for kind in kinds]
    theirs.load_state_dict(
        {f"{names[layer]}.{kind}": ours.get_parameter(f"{layer}.{kind}") for layer, kind in pairs}
    )
    x = torch.randn(2, LENGTH, D_MODEL)
    torch.testing.assert_close(ours(x)[0], theirs(x), rtol=0, atol=1e-6)


def test_the_gated_network_is_as_large_as_the_dense_one():
    assert [SwiGLU(width).expand.out_features for width in (16, 64, 256)] == [40, 168, 680]
    dense, gated = MLP(768, bias=False), SwiGLU(768)
    assert parameters(gated) == parameters(dense)


@needs_transformers
def test_gated_experts_equal_mixtrals_block():
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    ours = MoE(D_MODEL, num_experts=4, top_k=3, gated=True, balance=0.0)
    config = MixtralConfig(
        hidden_size=D_MODEL,
        intermediate_size=ours.expand.shape[-1],
        num_local_experts=4,
        num_experts_per_tok=3,
    )
    config._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(config)
    assert ours.gate is not None
    both = torch.cat((ours.gate, ours.expand), dim=-1)
    theirs.load_state_dict(
        {
            "experts.gate_up_proj": rearrange(both, "e i o -> e o i"),
            "experts.down_proj": rearrange(ours.contract, "e i o -> e o i"),
            "gate.weight": ours.router.weight,
        }
    )
    x = torch.randn(3, LENGTH, D_MODEL)
    torch.testing.assert_close(ours(x)[0], theirs(x), rtol=0, atol=1e-6)


@law((True, False))
def test_shared_experts_are_added_at_full_weight(gated):
    knobs = {"num_experts": 4, "top_k": 2, "gated": gated}
    moe, alone = MoE(D_MODEL, shared=2, **knobs), MoE(D_MODEL, **knobs)
    alone.load_state_dict(moe.state_dict(), strict=False)
    x = torch.randn(2, LENGTH, D_MODEL)
    shared = torch.zeros_like(x)
    weights = dict(moe.shared.named_parameters())
    up, down = weights["expand.weight"], weights["contract.weight"]
    assert up.shape[0] == 2 * moe.expand.shape[-1]
    for expert in range(2):
        hidden = x @ up.chunk(2)[expert].T
        if gated:
            gate = x @ weights["gate.weight"].chunk(2)[expert].T
            hidden = hidden * gate * torch.sigmoid(gate)
        else:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        shared = shared + hidden @ down.chunk(2, dim=1)[expert].T
    torch.testing.assert_close(moe(x)[0], alone(x)[0] + shared, rtol=0, atol=1e-6)
    assert moe.idle_parameters == alone.idle_parameters


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


@law((1, 2, 3, 8))
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


def test_the_balance_loss_is_that_of_mixtrals_code_but_for_the_number_of_choices():
    """transformers' `load_balancing_loss_func`, written from its description, on one layer."""
    torch.manual_seed(0)
    for top_k in (1, 2, 3):
        moe = MoE(D_MODEL, num_experts=4, top_k=top_k, balance=0.02 * top_k)
        x = torch.randn(2, LENGTH, D_MODEL)
        probability = (x.reshape(-1, D_MODEL) @ moe.router.weight.T).softmax(dim=-1)
        chosen = F.one_hot(probability.topk(top_k).indices, 4).double()
        loads, shares = chosen.mean(dim=0), probability.mean(dim=0)
        theirs = 0.02 * 4 * (loads * shares).sum().item()
        assert moe(x)[1]["balance"].item() == pytest.approx(theirs, rel=1e-6)


def test_gelu_tanh_is_gpt2s():
    """Radford et al. 2019, model.py: .5 x (1 + tanh(sqrt(2 / pi) (x + .044715 x^3)))."""
    x = torch.linspace(-6, 6, 401, dtype=torch.float64)
    theirs = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(MLP(8, activation="gelu_tanh").bend(x), theirs, rtol=0, atol=1e-14)
    exact = MLP(8).bend(x)
    torch.testing.assert_close(exact, 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
    assert 1e-4 < (exact - theirs).abs().max() < 5e-4


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
    valid = torch.arange(8)[None] < 4
    for first, second, expected in ((even, uneven, 0.01), (uneven, even, 0.04)):
        both = torch.cat((first, second), dim=1)
        assert moe(both, valid)[1]["balance"].item() == pytest.approx(expected)


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


def test_first_choices_come_before_second_ones_and_padding_takes_no_room():
    moe = MoE(8, num_experts=4, top_k=2, capacity=0.75).train()
    x, valid = torch.randn(2, 8, 8), torch.arange(8) < torch.tensor([[8], [5]])
    with record(moe, "drops") as heard:
        trained = moe(x, valid)[0]
    probability = torch.softmax(x @ moe.router.weight.T, dim=-1)
    weight, expert = probability.topk(2, dim=-1)
    weight = weight / weight.sum(-1, keepdim=True)
    # 13 tokens, 2 choices among 4 experts, three quarters of an equal share (4.9): room for 5.
    taken, expected, dropped = [0] * 4, torch.zeros_like(x), 0
    for choice, at in ((c, at) for c in range(2) for at in valid.nonzero().tolist()):
        b, s = at
        e = int(expert[b, s, choice])
        taken[e] += 1
        if taken[e] > 5:
            dropped += 1
            continue
        hidden = F.gelu(x[b, s] @ moe.expand[e])
        expected[b, s] += weight[b, s, choice] * (hidden @ moe.contract[e])
    assert dropped
    torch.testing.assert_close(trained[valid], expected[valid], rtol=0, atol=1e-5)
    assert heard["drops"].item() == pytest.approx(dropped / 26)


def test_the_load_is_the_share_of_assignments():
    moe = MoE(D_MODEL, num_experts=4, top_k=2)
    x = torch.randn(3, LENGTH, D_MODEL)
    with record(moe) as heard:
        moe(x)
    best = F.one_hot((x @ moe.router.weight.T).topk(2).indices, 4).float()
    torch.testing.assert_close(heard["load"], best.mean(dim=(0, 1)).sum(0) / 2)


@law((True, False))
def test_the_grouped_product_of_a_gpu_equals_the_loop_of_a_cpu(gated):
    moe = MoE(D_MODEL, num_experts=4, gated=gated)
    run, ends = torch.randn(12, D_MODEL), torch.tensor([3, 3, 10, 12])
    stacks = moe._expert_stacks()
    together = moe._apply_expert(run, *stacks, ends=ends.int())
    parts = zip(run.tensor_split(ends[:-1]), *(w.unbind() for w in stacks), strict=True)
    apart = torch.cat([moe._apply_expert(part, *weights) for part, *weights in parts])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-6)


class Rows(TorchDispatchMode):
    """Counts the rows of each product."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mm.default:
            self.counts.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def test_in_low_precision_a_cpu_sees_few_shapes_and_the_same_output():
    moe = MoE(D_MODEL, num_experts=4, top_k=2).eval()
    x = torch.randn(8, 64, D_MODEL)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Rows() as rows:
        low = moe(x)[0]
        alone = torch.stack([moe(x[:1, at : at + 1])[0][0, 0] for at in range(9)])
    # 512 tokens give each expert 256 rows on average, in blocks of a sixteenth.
    assert rows.counts[0] == 4
    assert all(count % 16 == 0 for count in rows.counts[1:9])
    torch.testing.assert_close(low[0, :9], alone, rtol=0, atol=0.005)
    torch.testing.assert_close(low, moe(x)[0], rtol=0, atol=0.02)


@law([(16, 16), (16, 5)])
def test_expert_choice_equals_a_loop_over_experts(lengths):
    ffn = ExpertChoice(D_MODEL, num_experts=4, capacity=1.2).eval()
    x = torch.randn(2, 16, D_MODEL)
    valid = torch.arange(16) < torch.tensor(lengths)[:, None]
    with record(ffn) as heard:
        out, losses = ffn(x, valid)
    expected, met = torch.zeros_like(x), torch.zeros(2, 16, dtype=torch.bool)
    for b, length in enumerate(lengths):
        affinity = torch.softmax(x[b, :length] @ ffn.router.weight.T, dim=-1)
        for e in range(4):
            # 1.2 experts a token: 4.8 of 16 tokens each, 1.5 of 5.
            order = sorted(range(length), key=lambda at, e=e, p=affinity: -p[at, e])
            for at in order[: {16: 5, 5: 2}[length]]:
                hidden = F.gelu(x[b, at] @ ffn.expand[e])
                expected[b, at] += affinity[at, e] * (hidden @ ffn.contract[e])
                met[b, at] = True
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert losses == {}
    assert heard["drops"].item() == pytest.approx(1 - met.sum().item() / sum(lengths))
    assert heard["load"].tolist() == [0.25] * 4


@law(sorted({*choices("model/ffn")} - {"none"}))
def test_what_a_sequence_gets_does_not_hang_on_its_neighbours_or_padding(name):
    ffn = part("ffn", name)(D_MODEL).eval()
    x, valid = torch.randn(3, 16, D_MODEL), torch.arange(16) < torch.tensor([[16], [11], [3]])
    together = ffn(x, valid)[0]
    for b, length in enumerate((16, 11, 3)):
        alone = ffn(x[b : b + 1, :length])[0]
        torch.testing.assert_close(together[b : b + 1, :length], alone, rtol=0, atol=1e-6)
    assert torch.isfinite(together).all()


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("top_k", lambda: MoE(16, num_experts=2, top_k=3)),
        ("d_model", lambda: MoE(12)),
        ("capacity", lambda: MoE(16, capacity=0.0)),
        ("shared", lambda: MoE(16, shared=-1)),
        ("moe_expansion", lambda: MoE(16, expansion=0.1)),
        ("expansion", lambda: MLP(16, expansion=0.0)),
        ("activation", lambda: MLP(16, activation="tanh")),
        ("gated_expansion", lambda: SwiGLU(16, expansion=0.1)),
        ("no_expert", lambda: ExpertChoice(16, num_experts=0)),
        ("choice_capacity", lambda: ExpertChoice(16, num_experts=4, capacity=4.5)),
        ("choice_expansion", lambda: ExpertChoice(16, expansion=0.1)),
    ],
)
def test_an_impossible_network_is_refused(key, build):
    with refuses(ValueError, f"ffn.impossible.{key}"):
        build()
