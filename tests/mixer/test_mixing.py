"""The matrix that a linear mixer shows is what it does: as its recurrence and closed forms."""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn import functional as F

from attnlab.mixer.base import Mixer
from attnlab.position.base import Position
from attnlab.recurrence import channel, delta, scalar
from attnlab.recurrence.base import mix
from attnlab.tap import Mixing, edit, record, taps
from tests.choices import choices
from tests.model.build import part
from tests.model.law import law

WIDTH, LENGTH, SHORT = 16, 37, 20
"""More positions than a chunk holds; the second sequence is a short one."""


def built(name: str, causal: bool = True, **knobs: Any) -> Mixer:
    mixer = part("mixer", name)(WIDTH, Position(WIDTH, LENGTH), causal, **knobs)
    with torch.no_grad():
        for weights in mixer.parameters():
            weights += 0.3 * torch.randn_like(weights)
    return mixer.eval()


@cache
def linear() -> list[str]:
    """List the mixers that have a matrix to show."""
    return [name for name in choices("model/mixer") if taps(built(name), "mixing")]


def arms() -> list[tuple[str, bool]]:
    """List each in both directions: a unidirectional one does so whatever the objective says."""
    return [(name, causal) for name in linear() for causal in (True, False)]


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    valid = torch.ones(2, LENGTH, dtype=torch.bool)
    valid[1, SHORT:] = False
    return torch.randn(2, LENGTH, WIDTH, dtype=dtype), valid


def seen(mixer: Mixer, x: Tensor, valid: Tensor | None = None) -> Tensor:
    with torch.no_grad(), record(mixer, "mixing") as heard:
        mixer(x, valid)
    return heard["mixing"]


def test_the_linear_mixers_are_those_that_keep_a_sum_of_keys_and_values():
    assert linear() == [
        "delta_rule", "gated_delta", "gated_linear", "linear_attention", "retention",
        "selective_state_space",
    ]  # fmt: skip


@law(arms, (False, True))
def test_the_matrix_times_the_values_is_the_recurrence(arm, padded):
    name, causal = arm
    mixer, (x, valid) = built(name, causal).double(), inputs()
    calls: list[tuple[Tensor, Tensor]] = []

    def spy(tap: Mixing, recur: Callable[[Tensor], Tensor], value: Tensor, valid: Any) -> Tensor:
        calls.append((value, recur(value)))
        assert tap.num_heads == value.shape[1]
        return mix(tap, recur, value, valid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[type(mixer).__module__], "mix", spy)
        matrix = seen(mixer, x, valid if padded else None)
    ((value, wanted),) = calls
    assert matrix.shape == (*value.shape[:2], LENGTH, LENGTH)
    mixed = matrix @ value
    torch.testing.assert_close(mixed[0], wanted[0])
    asked = SHORT if padded else LENGTH
    torch.testing.assert_close(mixed[1, :, :asked], wanted[1, :, :asked])
    if causal or mixer.unidirectional:
        assert (matrix.triu(1) == 0).all()
    if padded:
        assert (matrix[1, ..., SHORT:] == 0).all()


@law(arms)
def test_hearing_the_matrix_changes_no_output(arm):
    mixer, (x, valid) = built(*arm), inputs(torch.float32)
    silent = mixer(x, valid)
    with record(mixer, "mixing"):
        torch.testing.assert_close(mixer(x, valid), silent, rtol=0, atol=1e-5)


def test_unheard_the_recurrence_is_all_that_runs():
    value, calls = torch.randn(1, 2, 5, 3), []
    assert mix(Mixing(2), lambda x: (calls.append(x), x)[1], value, None) is value
    assert len(calls) == 1
    assert calls[0] is value


@law(arms)
def test_a_cut_edge_changes_what_its_query_gets_and_nothing_else(arm):
    mixer, (x, _) = built(*arm).double(), inputs()
    query, key = 30, 4

    def cut(_name: str, matrix: Tensor) -> Tensor:
        matrix = matrix.clone()
        matrix[:, :, query, key] = 0
        return matrix

    whole = mixer(x)
    with edit(mixer, "mixing", cut):
        moved = (mixer(x) - whole).abs().amax(dim=-1)
    others = torch.arange(LENGTH) != query
    assert (moved[:, query] > 1e-6).all()
    torch.testing.assert_close(moved[:, others], torch.zeros(2, LENGTH - 1, dtype=torch.float64))


def unrolled(
    query: Tensor, key: Tensor, decay: Tensor | None = None, strength: Tensor | None = None
) -> Tensor:
    """Follow each key through the later positions, which fade it and take out what is theirs."""
    matrix = query.new_zeros(*query.shape[:3], query.shape[2])
    for start in range(query.shape[2]):
        memory = key[:, :, start]
        if strength is not None:
            memory = strength[:, :, start, None] * memory
        for t in range(start, query.shape[2]):
            if t > start and decay is not None:
                faded = decay[:, :, t].exp()
                memory = memory * (faded if decay.ndim == 4 else faded[..., None])
            if t > start and strength is not None:
                overlap = (key[:, :, t] * memory).sum(-1, keepdim=True)
                memory = memory - strength[:, :, t, None] * overlap * key[:, :, t]
            matrix[:, :, t, start] = (query[:, :, t] * memory).sum(-1)
    return matrix


@law(linear)
def test_the_matrix_is_each_key_followed_to_each_later_query(name):
    mixer, (x, _) = built(name).double(), inputs()
    parts: list[Any] = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for kind in (scalar, channel, delta):
            scan = kind.scan
            patch.setattr(
                kind, "scan", lambda *given, _scan=scan: (parts.append(given), _scan(*given))[1]
            )
        mixer(x)
    ((query, key, value, *gates),) = parts
    shape = (*value.shape[:3], query.shape[-1])
    gated = "delta" in name
    strength, decay = gates if gated else (None, gates[0])
    wanted = unrolled(query.expand(shape), key.expand(shape), decay, strength)
    if name == "linear_attention":
        wanted = wanted / wanted.sum(-1, keepdim=True)
    if name == "selective_state_space":
        weights = dict(mixer.named_parameters())
        projected = x @ weights["project.weight"][-4:].T + weights["dt_bias"]
        wanted = wanted * rearrange(F.softplus(projected), "b s h -> b h 1 s")
        wanted = wanted + rearrange(weights["D"], "h -> h 1 1") * torch.eye(LENGTH)
    torch.testing.assert_close(seen(mixer, x), wanted.detach(), rtol=1e-5, atol=1e-6)


def test_the_matrix_of_retention_is_the_decayed_product_over_the_root_of_the_width():
    mixer, (x, _) = built("retention").double(), inputs()
    weights = mixer.get_parameter("query_key_value_gate.weight")[: 2 * WIDTH]
    query, key = rearrange(x @ weights.T, "b s (two h d) -> two b h s d", two=2, h=4)
    distance = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).double()
    decay = torch.stack([(1 - 2.0 ** (-5 - head)) ** distance for head in range(4)]).tril()
    wanted = einsum(query, key, "b h q d, b h k d -> b h q k") / 2 * decay
    torch.testing.assert_close(seen(mixer, x), wanted.detach())


@law((True, False), (False, True))
def test_the_rows_of_linear_attention_sum_to_1(causal, padded):
    mixer, (x, valid) = built("linear_attention", causal).double(), inputs()
    matrix = seen(mixer, x, valid if padded else None)
    sums = matrix.sum(dim=-1)[:, :, :SHORT]
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
    assert (matrix >= 0).all()
