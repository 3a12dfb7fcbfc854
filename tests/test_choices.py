"""What conf/ offers is read without Hydra, and is what Hydra would compose."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from attnlab.choices import choice_files, conf_dir, overridable_keys
from attnlab.config.composition import compose_with_faults
from attnlab.errors import RequestError

FILES = choice_files()
CHANGING = {
    "variant": ("lstm_attention", "moe"),
    "dataset": ("mqar", "tinystories", "mixture"),
    "model/mixer": ("hybrid", "lstm"),
    "callbacks": ("early_stop", "test_curve"),
    "experiment": tuple(FILES["experiment"]),
}
"""Choices that change which keys there are, each in another way."""


def leaves(node: Any, above: str = "") -> list[str]:
    """List the dotted keys that hold a value; an empty section holds none."""
    if not isinstance(node, dict):
        return [] if above.split(".")[-1].startswith("_") else [above]
    return [key for name, n in node.items() for key in leaves(n, f"{above}.{name}".lstrip("."))]


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, ns in CHANGING.items() for n in ns])
def test_the_keys_that_are_offered_are_those_that_hydra_composes(composed, group, name):
    """`composed` opens the search path."""
    hydra_config, faults = compose_with_faults([f"{group}={name}"])
    assert faults == []
    values: Any = OmegaConf.to_container(hydra_config, resolve=False)
    expected = {*leaves({key: value for key, value in values.items() if key != "hydra"})}
    assert {*overridable_keys([f"{group}={name}"], FILES).knobs} == expected


def test_every_group_that_is_offered_can_be_chosen_from(composed):
    groups, _ = overridable_keys(["model/mixer=hybrid", "dataset=tinystories"], FILES)
    assert {"model/mixer@model.mixer.a", "dataset/tokenizer"} <= {*groups}
    words = [f"{group}={choices[0]}" for group, choices in groups.items() if "@" in group]
    _, faults = compose_with_faults(["model/mixer=hybrid", "dataset=tinystories", *words])
    assert faults == []


def test_the_choices_of_a_directory_of_ones_own_are_offered_too(tmp_path):
    (tmp_path / "model/mixer").mkdir(parents=True)
    (tmp_path / "model/mixer/mine.yaml").write_text("_target_: mine.Mine\nsharpness: 2\n")
    groups, knobs = overridable_keys(["model/mixer=mine"], choice_files(tmp_path))
    assert {"mine", "multihead"} <= {*groups["model/mixer"]}
    assert knobs["model.mixer.sharpness"] == 2
    with pytest.raises(RequestError, match="is not a directory"):
        choice_files(tmp_path / "nowhere")


def test_a_yaml_that_cannot_be_read_offers_nothing(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/broken.yaml").write_text("a: [")
    groups, knobs = overridable_keys(["experiment=broken"], choice_files(tmp_path))
    assert "broken" in groups["experiment"]
    assert knobs["seed"] == 0


def test_the_configs_stand_beside_the_source():
    assert (conf_dir() / "train.yaml").is_file()
    assert conf_dir() == Path(__file__).parents[1] / "conf"
