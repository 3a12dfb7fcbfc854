"""A section builds what is defined in its own rooms, and what the user's own YAMLs name."""

import sys
import types
from functools import partial

import pytest

from attnlab.building import NO_USER_TARGETS, PARTS, UserTargets, build, find_target, is_allowed
from attnlab.interruption import Interrupted, raise_on_stop_signals
from attnlab.metric.accuracy import accuracy
from attnlab.model.block import PreNorm
from tests.prose import refuses

REFUSED = {
    "foreign": ("model", "os.system"),
    "of_the_house": ("model", "attnlab.cli.main"),
    "other_section": ("dataset", "attnlab.mixer.multihead.MultiHead"),
    "function": ("model", "attnlab.model.cost.flops"),
    "writer": ("dataset", "attnlab.dataset.export.export"),
    "imported": ("model", "attnlab.model.transformer.nn.Module"),
    "private": ("model", "attnlab.model.transformer._Private"),
    "module": ("model", "attnlab.model.transformer"),
    "method": ("dataset", "attnlab.dataset.parity.Parity.batch"),
    "missing": ("model", "attnlab.model.transformer.Transfromer"),
    "no_section": ("models", "attnlab.model.transformer.Transformer"),
    "package_alone": ("model", "attnlab.model"),
    "number": ("model", 3),
    "list": ("model", ["os.system"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_section_does_not_build_from_is_refused(case):
    section, name = REFUSED[case]
    with refuses(ValueError, f"building.{case}"):
        find_target(name, section, NO_USER_TARGETS)


def test_what_is_refused_by_its_name_is_not_imported():
    for name in ("antigravity.webbrowser", "this.s"):
        assert not is_allowed(name, "model", NO_USER_TARGETS)
        with pytest.raises(ValueError, match="is none of what model is built from"):
            find_target(name, "model", NO_USER_TARGETS)
        assert name.split(".")[0] not in sys.modules


def test_a_request_to_stop_during_an_import_is_raised_after_it(monkeypatch, tmp_path):
    (tmp_path / "swallows.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\nexcept BaseException:\n    pass\n"
        "from attnlab.model.block import PreNorm as Part\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = UserTargets("mine", frozenset({"swallows.Part"}))
    try:
        with raise_on_stop_signals(), pytest.raises(Interrupted):
            find_target("swallows.Part", "model", own)
        assert sys.modules["swallows"].Part is PreNorm
    finally:
        sys.modules.pop("swallows", None)


def test_an_own_target_is_the_one_that_is_named_and_no_neighbour(monkeypatch):
    theirs = types.ModuleType("theirs")
    theirs.Part = theirs.Other = PreNorm  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "theirs", theirs)
    own = UserTargets("mine", frozenset({"theirs.Part"}))
    assert find_target("theirs.Part", "model", own) is PreNorm
    with pytest.raises(ValueError, match=r"theirs\.Other is none of what"):
        find_target("theirs.Other", "model", own)


def test_parts_inside_are_built_first_and_text_stays_text():
    taken = {}

    class Whole:
        def __init__(self, *wiring, **knobs):
            taken.update(wiring=wiring, knobs=knobs)

    theirs = types.ModuleType("theirs")
    theirs.Whole = Whole  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["theirs"] = theirs
    try:
        inner = {"_target_": "attnlab.metric.accuracy.accuracy", "_partial_": True}
        node = {
            "_target_": "theirs.Whole",
            "text": "${oc.env:HOME}",
            "parts": [inner, {"a": inner}, None],
        }
        build(node, "metric", UserTargets(None, frozenset({"theirs.Whole"})), 1, 2)
    finally:
        del sys.modules["theirs"]
    assert taken["wiring"] == (1, 2)
    assert taken["knobs"]["text"] == "${oc.env:HOME}"
    first, second, last = taken["knobs"]["parts"]
    assert isinstance(first, partial)
    assert first.func is second["a"].func is accuracy
    assert last is None


def test_every_section_of_the_config_says_what_it_builds_from(composed):
    config = composed("dataset=mqar")
    sections = {key for key, value in config.values.items() if isinstance(value, dict)}
    assert sections == set(PARTS)
