"""The linear mixers against loops written from the papers' equations, with the same weights."""

import math
from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer
from attnlab.mixer.delta_rule import DeltaRule
from attnlab.mixer.gated_delta import GatedDelta
from attnlab.mixer.gated_linear import GatedLinear
from attnlab.mixer.linear_attention import LinearAttention
from attnlab.mixer.retention import Retention
from attnlab.mixer.selective_state_space import SelectiveStateSpace
from attnlab.position.base import Position
from attnlab.position.rope import RoPE
from tests.model.law import law
from tests.prose import refuses

D_MODEL, HEADS, LENGTH = 24, 3, 37
"""More positions than a chunk holds."""


def built(kind: Callable[..., Mixer], position: type[Position] = Position, **knobs) -> Mixer:
    mixer = kind(D_MODEL, position(D_MODEL, LENGTH), True, num_heads=HEADS, **knobs).double()
    with torch.no_grad():
        for weights in mixer.parameters():
            weights += 0.1 * torch.randn_like(weights)
    return mixer.eval()


def inputs() -> Tensor:
    return torch.randn(2, LENGTH, D_MODEL, dtype=torch.float64)


def stepped(mixer: Mixer, x: Tensor) -> Tensor:
    state, steps = None, []
    for at in range(x.shape[1]):
        y, state = mixer.step(x[:, at : at + 1], at, state)
        steps.append(y)
    return torch.cat(steps, dim=1)


def check(mixer: Mixer, head: Callable[[dict[str, Tensor], Tensor], Tensor]) -> None:
    """Compare the mixer, whole and stepped, with a loop over one sequence (seq, d_model)."""
    x, weights = inputs(), {name: w.detach() for name, w in mixer.named_parameters()}
    wanted = torch.stack([head(weights, sequence) for sequence in x])
    torch.testing.assert_close(mixer(x), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(stepped(mixer, x), wanted, rtol=1e-6, atol=1e-6)


def heads(x: Tensor, num_heads: int = HEADS) -> list[Tensor]:
    return list(x.chunk(num_heads, dim=-1))


def convolved(x: Tensor, kernel: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    width = kernel.shape[1]
    rows = []
    for t in range(len(x)):
        row = torch.zeros_like(x[t]) + bias
        for back in range(min(width, t + 1)):
            row = row + kernel[:, width - 1 - back] * x[t - back]
        rows.append(row)
    return torch.stack(rows)


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()


def rms(x: Tensor, scale: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale


def layer(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def linear_attention(causal: bool, length: int) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    def run(w: dict[str, Tensor], x: Tensor) -> Tensor:
        projected = x @ w["query_key_value.weight"].T + w["query_key_value.bias"]
        out = []
        for q, k, v in zip(*(heads(part) for part in projected.chunk(3, dim=-1)), strict=True):
            q, k = (torch.where(z > 0, z + 1, z.exp()) for z in (q, k))
            rows = []
            for t in range(len(x)):
                end = t + 1 if causal else length
                weight = k[:end] @ q[t]
                rows.append(weight @ v[:end] / weight.sum())
            out.append(torch.stack(rows))
        return torch.cat(out, dim=-1) @ w["output.weight"].T + w["output.bias"]

    return run


def test_linear_attention_is_katharopoulos_equations():
    check(built(LinearAttention), linear_attention(True, LENGTH))


def test_two_way_linear_attention_reads_every_valid_position():
    mixer = built(LinearAttention)
    both = LinearAttention(D_MODEL, mixer.position, False, num_heads=HEADS).double()
    both.load_state_dict(mixer.state_dict())
    x, weights = inputs(), {name: w.detach() for name, w in mixer.named_parameters()}
    valid = torch.ones(2, LENGTH, dtype=torch.bool)
    valid[1, 20:] = False
    mixed = both(x, valid)
    torch.testing.assert_close(both(x)[0], mixed[0])
    for sequence, length in ((0, LENGTH), (1, 20)):
        wanted = linear_attention(False, length)(weights, x[sequence])
        torch.testing.assert_close(mixed[sequence, :length], wanted[:length], rtol=1e-5, atol=1e-5)
    with refuses(ValueError, "mixer.linear.two_way_step"):
        both.step(x[:, :1], 0)


@pytest.mark.parametrize("position", [Position, RoPE])
@pytest.mark.parametrize("value_expansion", [1.0, 2.0])
def test_retention_is_sun_et_als_parallel_form_with_every_normalisation(position, value_expansion):
    mixer = built(Retention, position, value_expansion=value_expansion)
    d_key, d_values = D_MODEL // HEADS, int(value_expansion * D_MODEL)

    def turned(x: Tensor) -> Tensor:
        if position is Position:
            return x
        angle = torch.outer(
            torch.arange(len(x), dtype=torch.float64),
            10_000.0 ** (-torch.arange(0, d_key, 2, dtype=torch.float64) / d_key),
        )
        pairs = torch.view_as_complex(rearrange(x, "s (d two) -> s d two", two=2).contiguous())
        turn = torch.polar(torch.ones_like(angle), angle)
        return rearrange(torch.view_as_real(pairs * turn), "s d two -> s (d two)")

    def run(w: dict[str, Tensor], x: Tensor) -> Tensor:
        projected = x @ w["query_key_value_gate.weight"].T
        *parts, gate = projected.split((D_MODEL, D_MODEL, d_values, d_values), dim=-1)
        out = []
        for h, (q, k, v) in enumerate(zip(*(heads(part) for part in parts), strict=True)):
            at = torch.arange(len(x))
            decay = (1 - 2.0 ** (-5 - h)) ** (at[:, None] - at[None, :]).double()
            decay = decay.tril()
            scores = turned(q) @ turned(k).T * d_key**-0.5
            scores = scores * decay / decay.sum(-1, keepdim=True).sqrt()
            # A small output would feel the norm's epsilon: both divide by a positive number.
            scale = decay.sum(-1, keepdim=True).sqrt() * scores.sum(-1, keepdim=True).abs().clamp(1)
            read = scores / scores.sum(-1, keepdim=True).abs().clamp(1) @ v
            centred = read - read.mean(-1, keepdim=True)
            spread = (centred.square().mean(-1, keepdim=True) + 1e-5 / scale.square()).sqrt()
            out.append(centred / spread)
        return (F.silu(gate) * torch.cat(out, dim=-1)) @ w["output.weight"].T

    check(mixer, run)


@pytest.mark.parametrize("scaled", [False, True])
def test_gated_linear_is_yang_et_als_recurrence(scaled):
    def run(w: dict[str, Tensor], x: Tensor) -> Tensor:
        parts = (x @ w["query_key_value.weight"].T).split((12, 12, D_MODEL), dim=-1)
        lowered = x @ w["decay.0.weight"].T @ w["decay.1.weight"].T + w["decay.1.bias"]
        out = []
        for q, k, v, a in zip(*map(heads, (*parts, lowered.sigmoid() ** (1 / 8))), strict=True):
            state, rows = torch.zeros(k.shape[1], v.shape[1], dtype=torch.float64), []
            for t in range(len(x)):
                state = torch.diag(a[t]) @ state + torch.outer(k[t], v[t])
                rows.append(scale(q[t], scaled) @ state)
            out.append(layer(torch.stack(rows)) * w["norm.weight"] + w["norm.bias"])
        gate = F.silu(x @ w["gate.weight"].T + w["gate.bias"])
        return (gate * torch.cat(out, dim=-1)) @ w["output.weight"].T

    check(built(GatedLinear, decay_rank=5, temperature=8.0, scale_queries=scaled), run)


def scale(query: Tensor, scaled: bool) -> Tensor:
    """Divide by the root of the width, as fla's `chunk_gla` and `chunk_gated_delta_rule` do."""
    return query / math.sqrt(query.shape[-1]) if scaled else query


def delta(q: Tensor, k: Tensor, v: Tensor, strength: Tensor, decay: Tensor, scaled: bool) -> Tensor:
    """S_t = S_{t-1} (a_t (I - b_t k_t k_t^T)) + b_t v_t k_t^T (Yang et al. 2024b, eq. 10)."""
    state, rows = torch.zeros(v.shape[1], k.shape[1], dtype=torch.float64), []
    for t in range(len(q)):
        k_t = unit(k[t])
        kept = torch.eye(len(k_t), dtype=torch.float64) - strength[t] * torch.outer(k_t, k_t)
        state = decay[t] * state @ kept + strength[t] * torch.outer(v[t], k_t)
        rows.append(state @ scale(unit(q[t]), scaled))
    return torch.stack(rows)


@pytest.mark.parametrize(("kernel_size", "scaled"), [(3, False), (None, True)])
def test_the_delta_rule_is_yang_et_als_recurrence(kernel_size, scaled):
    def run(w: dict[str, Tensor], x: Tensor) -> Tensor:
        projected = x @ w["query_key_value.weight"].T
        if kernel_size is not None:
            projected = convolved(projected, w["convolution"])
        parts = F.silu(projected).chunk(3, dim=-1)
        strength = (x @ w["strength.weight"].T).sigmoid()
        out = [
            rms(delta(q, k, v, strength[:, h], torch.ones(len(x)), scaled), w["norm.weight"])
            for h, (q, k, v) in enumerate(zip(*map(heads, parts), strict=True))
        ]
        return torch.cat(out, dim=-1) @ w["output.weight"].T

    check(built(DeltaRule, kernel_size=kernel_size, scale_queries=scaled), run)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_gated_delta_rule_is_yang_et_als_recurrence(scaled):
    def run(w: dict[str, Tensor], x: Tensor) -> Tensor:
        projected = convolved(x @ w["query_key_value.weight"].T, w["convolution"])
        parts = F.silu(projected).split((18, 18, 36), dim=-1)
        strength = (x @ w["strength.weight"].T).sigmoid()
        rate = (1 + (x @ w["decay.weight"].T + w["dt_bias"]).exp()).log()
        decay = (-w["A_log"].exp() * rate).exp()
        out = [
            rms(delta(q, k, v, strength[:, h], decay[:, h], scaled), w["norm.weight"])
            for h, (q, k, v) in enumerate(zip(*map(heads, parts), strict=True))
        ]
        gate = F.silu(x @ w["gate.weight"].T)
        return (gate * torch.cat(out, dim=-1)) @ w["output.weight"].T

    check(built(GatedDelta, scale_queries=scaled), run)


def test_the_selective_state_space_is_dao_and_gus_recurrence():
    d_inner, d_state = 48, 5

    def run(w: dict[str, Tensor], x: Tensor) -> Tensor:
        projected = x @ w["project.weight"].T
        z, channels, dt = projected.split((d_inner, d_inner + 2 * d_state, HEADS), dim=-1)
        channels = F.silu(convolved(channels, w["convolution"], w["convolution_bias"]))
        inner, write, read = channels.split((d_inner, d_state, d_state), dim=-1)
        dt = (1 + (dt + w["dt_bias"]).exp()).log()
        out = []
        for h, u in enumerate(heads(inner)):
            state, rows = torch.zeros(u.shape[1], d_state, dtype=torch.float64), []
            for t in range(len(x)):
                kept = (-dt[t, h] * w["A_log"][h].exp()).exp()
                state = kept * state + dt[t, h] * torch.outer(u[t], write[t])
                rows.append(state @ read[t] + w["D"][h] * u[t])
            out.append(torch.stack(rows))
        return rms(torch.cat(out, dim=-1) * F.silu(z), w["norm.weight"]) @ w["output.weight"].T

    check(built(SelectiveStateSpace, d_state=d_state, kernel_size=3), run)


KINDS: dict[str, Callable[..., Mixer]] = {
    kind.__name__: kind
    for kind in (
        LinearAttention, Retention, GatedLinear, DeltaRule, GatedDelta, SelectiveStateSpace,
    )
}  # fmt: skip


@law(KINDS)
def test_the_state_has_its_full_size_from_the_first_step(name):
    mixer = built(KINDS[name])
    shapes, state = [], None
    for at in range(6):
        _, state = mixer.step(inputs()[:1, :1], at, state)
        held = [state] if isinstance(state, Tensor) else [*state]
        shapes.append([tuple(part.shape) for part in held])
        assert sum(part.numel() for part in held) == mixer.state_size(at + 1)
    assert all(shape == shapes[0] for shape in shapes)


@law(name for name in KINDS if name != "LinearAttention")
def test_a_mixer_that_reads_one_way_says_so(name):
    mixer = built(KINDS[name])
    assert mixer.unidirectional
    x = inputs()
    x[:, 20:] = 0
    torch.testing.assert_close(mixer(x)[:, :20], mixer(x[:, :20]))


@law(KINDS)
def test_a_mixer_can_be_built_without_memory(name):
    with torch.device("meta"):
        mixer = KINDS[name](32, Position(32, 8), True)
    assert all(weights.is_meta for weights in mixer.parameters())


def within(weights: Tensor, low: float, high: float) -> bool:
    """Whether the weights fill the range evenly, and do not leave it."""
    weights = (weights.detach() - low) / (high - low)
    even = abs(float(weights.mean()) - 0.5) < 0.1 and float(weights.max() - weights.min()) > 0.8
    return even and float(weights.min()) >= 0 and float(weights.max()) <= 1


@law(KINDS)
def test_parameters_start_as_the_docstring_says(name):
    mixer = KINDS[name](1024, Position(1024, 8), True, num_heads=256)
    named = dict(mixer.named_parameters())
    for owner, module in mixer.named_modules():
        if isinstance(module, nn.Linear):
            limit = module.in_features**-0.5
            assert within(named.pop(f"{owner}.weight"), -limit, limit)
            if module.bias is not None:
                assert within(named.pop(f"{owner}.bias"), -limit, limit)
    for norm, value in (("norm.weight", 1.0), ("norm.bias", 0.0), ("D", 1.0)):
        if norm in named:
            assert bool((named.pop(norm) == value).all())
    for part in ("convolution", "convolution_bias"):
        if part in named:
            assert within(named.pop(part), -0.5, 0.5)
    if "A_log" in named:
        assert within(named.pop("A_log").exp(), 1, 16)
        assert within(F.softplus(named.pop("dt_bias")).log(), math.log(0.001), math.log(0.1))
    assert not named


@pytest.mark.parametrize(
    ("key", "kind", "knobs"),
    [
        ("heads", LinearAttention, {"num_heads": 5}),
        ("retention_heads", Retention, {"num_heads": 5}),
        ("values", Retention, {"num_heads": 4, "value_expansion": 0.4}),
        ("keys", GatedLinear, {"num_heads": 4, "key_expansion": 0.4}),
        ("decay_rank", GatedLinear, {"decay_rank": 0}),
        ("temperature", GatedLinear, {"temperature": 0.0}),
        ("delta_heads", DeltaRule, {"num_heads": 5}),
        ("kernel_size", DeltaRule, {"kernel_size": 0}),
        ("gated_delta_heads", GatedDelta, {"num_heads": 5}),
        ("gated_delta_keys", GatedDelta, {"key_expansion": 0.0}),
        ("gated_delta_kernel_size", GatedDelta, {"num_heads": 3, "kernel_size": 0}),
        ("state_space_heads", SelectiveStateSpace, {"num_heads": 5}),
        ("d_state", SelectiveStateSpace, {"d_state": 0}),
        ("state_space_kernel_size", SelectiveStateSpace, {"kernel_size": 0}),
    ],
)
def test_what_cannot_work_is_refused(key, kind, knobs):
    with refuses(ValueError, f"mixer.linear.{key}"):
        kind(24, Position(24, 8), True, **knobs)
