"""A part of a config is held against what it names, inside lists and in foreign classes too."""

import sys
import types
from collections.abc import Callable, Sequence

import pytest
from torch import nn

from attnlab.building import NO_USER_TARGETS, UserTargets
from attnlab.mixer.base import Mixer
from attnlab.signatures import add_defaults, target_faults, target_nodes, value_faults
from tests.prose import says

SHORT = "attnlab.mixer.short_convolution.ShortConvolution"
THEIRS = UserTargets(None, frozenset({"theirs.Pile", "theirs.Foreign", "theirs.Careless"}))
PART = {"_target_": SHORT, "_partial_": True, "kernel_size": 4}


class Pile(Mixer):
    """A mixer of ours, for the convention it follows."""

    def __init__(self, d_model: int, *, pattern: Sequence[Callable[..., Mixer]], depth: int = 1):
        super().__init__(d_model, None, True)  # pyright: ignore


class Foreign(nn.Module):
    """Somebody's class: wiring and knobs are not parted, and a hint is wrong."""

    def __init__(self, d_model, kernel, width: int = None, layer_idx=None):  # pyright: ignore # noqa: RUF013
        super().__init__()


class Careless(nn.Module):
    """Somebody's class that takes anything."""

    def __init__(self, d_model, **anything):
        super().__init__()


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("theirs")
    for kind in (Pile, Foreign, Careless):
        setattr(package, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "theirs", package)


def faults(name: str, **knobs) -> list[str]:
    node = {"_target_": name, "_partial_": True, **knobs}
    return list(target_faults(node, "model.mixer", THEIRS))


def refused(key: str, found: list[str]) -> list[str]:
    """Hold faults to their words; gives the keys that they name."""
    says(key, "\n".join(found))
    return [fault.partition(": ")[0] for fault in found]


def test_a_typo_in_a_list_of_parts_is_told_with_its_place():
    typo = {"_target_": SHORT, "_partial_": True, "kernal_size": 3}
    assert refused("signatures.typo", faults("theirs.Pile", depth=1, pattern=[PART, typo])) == [
        "model.mixer.pattern[1].kernal_size",
        "model.mixer.pattern[1].kernel_size",
    ]


def test_a_list_of_parts_holds_nothing_else():
    others = [PART, 3, {"_target_": "os.system", "_partial_": True}]
    assert refused("signatures.no_part", faults("theirs.Pile", depth=1, pattern=others)) == [
        "model.mixer.pattern[1]",
        "model.mixer.pattern[2]._target_",
    ]


def test_a_list_of_fitting_parts_has_no_fault():
    assert faults("theirs.Pile", depth=1, pattern=[dict(PART), dict(PART)]) == []


def test_parts_in_lists_are_found_and_completed():
    node = {"_target_": "theirs.Pile", "pattern": [{"_target_": SHORT}]}
    pile, part = target_nodes({"model": node})
    assert pile is node
    add_defaults(part, "model", NO_USER_TARGETS)
    assert part == {"_target_": SHORT, "kernel_size": 4}


@pytest.mark.parametrize(("name", "value"), [("number", 3), ("name", "lstm"), ("list", [3])])
def test_a_value_in_place_of_a_part_is_told_with_what_is_expected(name, value):
    found = list(value_faults(value, Callable[..., Mixer] | None, "model.mixer.a"))
    assert refused(f"signatures.value.{name}", found) == ["model.mixer.a"]


def test_every_parameter_of_a_foreign_class_is_a_knob_but_what_the_adapter_gives():
    assert faults("theirs.Foreign", kernel=3, width=None) == []
    assert faults("theirs.Foreign", kernel=3, width=2.5) == []
    found = faults("theirs.Foreign", d_model=3, layer_idx=1, widht=3)
    assert refused("signatures.foreign", found) == [
        f"model.mixer.{knob}" for knob in ("d_model", "layer_idx", "widht", "kernel")
    ]


def test_a_foreign_class_that_takes_anything_gets_it():
    assert faults("theirs.Careless", anything=3) == []
