"""The page of a mixer is what its class says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from attnlab.mixer.base import Mixer
from tests.conftest import choices

ROOT = Path(__file__).parents[1]
MIXERS = choices("model/mixer")


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "docs/make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_mixer_has_a_page_with_a_picture_and_no_page_is_left_over():
    there = {path.stem for path in (ROOT / "docs/mixers").glob("*.md")} - {"README"}
    drawn = {path.stem for path in (ROOT / "docs/mixers").glob("*.png")}
    assert there == drawn == set(MIXERS)


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_states_a_formula_and_a_source(docs, name):
    kind = docs.made(name).func
    first, formula, _ = docs.parted(kind)
    assert issubclass(kind, Mixer)
    assert formula
    assert first.rstrip(".").endswith(")")
    assert any(year in first for year in map(str, range(1990, 2027)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_a_page_is_what_its_class_says(docs, name):
    told = (ROOT / f"docs/mixers/{name}.md").read_text()
    assert told == docs.page(name), "run `make docs`"


@pytest.mark.slow
def test_the_list_of_pages_is_what_the_classes_say(docs):
    assert (ROOT / "docs/mixers/README.md").read_text() == docs.index(), "run `make docs`"


def test_what_is_drawn_is_causal_and_bounded_by_the_window(docs):
    for name in ("multihead", "short_convolution"):
        shares = docs.shares(name)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(shares)))
        assert shares.triu(1).abs().max() == 0
    # A kernel of 4 reaches 3 positions back.
    assert docs.shares("short_convolution").tril(-4).abs().max() == 0
