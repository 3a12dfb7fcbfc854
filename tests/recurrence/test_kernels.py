"""The optional kernels get their arguments as they want them; a stand-in computes the loop."""

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from attnlab.recurrence import base, channel, delta, scalar
from tests.recurrence.loops import loop

BATCH, HEADS, SEQ, D_KEY, D_VALUE = 2, 3, 7, 6, 5
NAMES = ("simple_gla", "gla", "delta_rule", "gated_delta_rule")


class OnGPU(Tensor):
    """A tensor that says it is on a GPU, and is not."""

    is_cuda = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put a package in the place of `fla` whose functions note that they were called."""
    calls: list[str] = []

    def stand_in(name: str):
        def chunk(*, q, k, v, scale, initial_state, output_final_state, g=None, beta=None):
            calls.append(name)
            assert scale == 1.0
            assert output_final_state
            assert q.shape == k.shape == (BATCH, SEQ, HEADS, D_KEY)
            assert v.shape == (BATCH, SEQ, HEADS, D_VALUE)
            assert all(x.is_contiguous() for x in (q, k, v, g, beta) if x is not None)
            assert q.dtype == k.dtype == v.dtype == torch.bfloat16
            assert all(x.dtype is torch.float32 for x in (g, beta, initial_state) if x is not None)
            assert (beta is None) == (not name.endswith("delta_rule"))
            outputs, last = loop(q, k, v, g, beta, initial_state)
            return outputs.to(q.dtype), last.float()

        return chunk

    def module(name: str) -> ModuleType:
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    module("fla")
    module("fla.ops")
    for name in NAMES:
        setattr(module(f"fla.ops.{name}"), f"chunk_{name}", stand_in(name))
    base._is_installed.cache_clear()
    yield calls
    base._is_installed.cache_clear()


def parts(dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    query, key = torch.randn(2, BATCH, HEADS, SEQ, D_KEY, dtype=dtype).unbind()
    return query.as_subclass(OnGPU), key, torch.randn(BATCH, HEADS, SEQ, D_VALUE, dtype=dtype)


FORMS = {
    "simple_gla": (scalar.scan, ("decay",)),
    "simple_gla without decay": (scalar.scan, (None,)),
    "gla": (channel.scan, ("decays",)),
    "delta_rule": (delta.scan, ("strength", None)),
    "gated_delta_rule": (delta.scan, ("strength", "decay")),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("begun", [False, True])
def test_a_kernel_gets_its_arguments_right(called, name, begun):
    scan, gates = FORMS[name]
    given = {
        "decay": -torch.rand(BATCH, HEADS, SEQ),
        "decays": -torch.rand(BATCH, HEADS, SEQ, D_KEY),
        "strength": torch.rand(BATCH, HEADS, SEQ),
        None: None,
    }
    query, key, value = parts()
    state = torch.randn(BATCH, HEADS, D_KEY, D_VALUE) if begun else None
    gates = [given[gate] for gate in gates]
    outputs, last = scan(query, key, value, *gates, state)
    assert called == [name.split()[0]]
    wanted, wanted_last = scan(query.as_subclass(Tensor), key, value, *gates, state)
    assert outputs.dtype is torch.float32
    # The kernel's outputs are rounded to 8 bits.
    torch.testing.assert_close(outputs.as_subclass(Tensor), wanted, rtol=0.01, atol=0.01)
    torch.testing.assert_close(last, wanted_last)
    assert len(called) == 1


def test_what_heads_and_sequences_share_is_repeated_for_a_kernel(called):
    query, key, value = parts()
    decay = -torch.rand(1, HEADS, SEQ)
    outputs, _ = scalar.scan(query[:, :1], key[:, :1], value, decay)
    assert called == ["simple_gla"]
    wanted, _ = scalar.scan(query[:, :1].as_subclass(Tensor), key[:, :1], value, decay)
    torch.testing.assert_close(outputs.as_subclass(Tensor), wanted, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_keeps_the_plain_form(called, dtype):
    scalar.scan(*parts(dtype), None)
    assert called == []


def test_autocast_decides_the_precision_of_a_kernel(called, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _device: torch.bfloat16)
    scalar.scan(*parts(torch.float32), None)
    assert called == ["simple_gla"]


def test_a_cpu_never_loads_the_package(monkeypatch):
    monkeypatch.setattr(base, "import_module", lambda name: pytest.fail(f"loads {name}"))
    monkeypatch.setattr(base, "find_spec", lambda name: pytest.fail(f"looks for {name}"))
    query, key, value = parts()
    scalar.scan(query.as_subclass(Tensor), key, value, None)


def test_without_the_package_the_plain_form_serves(monkeypatch):
    monkeypatch.setattr(base, "_is_installed", lambda: False)
    query, key, value = parts()
    outputs, _ = scalar.scan(query, key, value, None)
    wanted, _ = scalar.scan(query.as_subclass(Tensor), key, value, None)
    torch.testing.assert_close(outputs.as_subclass(Tensor), wanted, rtol=0, atol=0)
