"""What the YAML of a dataset states, read without composing a whole config.

tests/config/test_check.py composes each of them, and holds it to this.
"""

from functools import cache
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from attnlab.config import conf_dir
from attnlab.dataset.base import Dataset
from tests.choices import dataset_words

SMALL = {"num_train": 400, "num_validation": 60, "num_test": 60}


@cache
def stated(name: str) -> dict[str, Any]:
    """Give the knobs of a dataset, small where it is drawn, of small files where it reads some."""
    knobs = published_knobs(name)
    _, *of_files = (word.removeprefix("dataset.").partition("=") for word in dataset_words(name))
    files = {knob: None if value == "null" else value for knob, _, value in of_files}
    return knobs | files | {knob: size for knob, size in SMALL.items() if knob in knobs}


def build(name: str, **changed: Any) -> Dataset:
    """Build a dataset as it is stated, with some knobs changed."""
    knobs = stated(name)
    assert changed.keys() <= knobs.keys()
    try:
        return instantiate({**knobs, **changed}, _execution_whitelist_=["attnlab.*"])
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


@cache
def published_knobs(name: str) -> dict[str, Any]:
    """Give the knobs of a dataset as its YAML, and those it builds on, state them."""
    content = yaml.safe_load((conf_dir() / f"dataset/{name}.yaml").read_text())
    knobs: dict[str, Any] = {}
    for choice in content.get("defaults", []):
        if isinstance(choice, str) and choice != "_self_":
            knobs |= published_knobs(choice)
        elif isinstance(choice, dict):
            for group, chosen in choice.items():
                if (place := group.partition("@dataset.")[2]) and isinstance(chosen, str):
                    path = conf_dir() / "dataset" / group.partition("@")[0].split()[-1]
                    knobs[place] = yaml.safe_load((path / f"{chosen}.yaml").read_text())
    return OmegaConf.to_container(OmegaConf.merge(knobs, content["dataset"]))  # pyright: ignore[reportReturnType]


def builds_on_another(name: str) -> bool:
    """Whether a dataset's YAML builds on that of another, and keeps its other choices."""
    content = yaml.safe_load((conf_dir() / f"dataset/{name}.yaml").read_text())
    return any(isinstance(c, str) and c != "_self_" for c in content.get("defaults", []))
