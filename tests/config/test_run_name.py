"""A run's name says what was chosen and what a sweep varies; a sweep has one name for ever."""

import re

import pytest

from attnlab.config import compose_each, search_path, sweep_overrides
from attnlab.config.run_name import MOST_CHARACTERS, name_sweep, run_name, sweep_name


def composed(*overrides):
    with search_path(None) as own:
        composed = compose_each(dict(enumerate(sweep_overrides(overrides))), own)
    assert not composed.faults
    return list(composed.configs.values())


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "pronoun-multihead-2x64-s0"),
        (("variant=moe", "depth=shallow", "seed=3"), "pronoun-moe-1x64-s3"),
        (("trainer.threads=1",), "pronoun-multihead-2x64-s0"),
        (
            ("dataset=parity", "model/mixer=grouped_query", "model/position=rope"),
            "parity-grouped_query-rope-2x64-s0",
        ),
        (("variant=multihead", "model/mixer=gated_delta"), "pronoun-multihead-gated_delta-2x64-s0"),
        (("model/position=none",), "pronoun-multihead-position_none-2x64-s0"),
        (
            ("optimizer.lr=0.0010", "model.ffn.bias=false"),
            "pronoun-multihead-2x64-lr1e-3-bias_false-s0",
        ),
        (("objective=masked", "evidence=none"), "pronoun-multihead-masked-evidence_none-2x64-s0"),
        (
            ("trainer.max_steps=150", "batch_size=16"),
            "pronoun-multihead-2x64-max_steps150-batch_size16-s0",
        ),
        (
            ("model.mixer.dropout=.1", "model.ffn.dropout=.2"),
            "pronoun-multihead-2x64-mixer_dropout.1-ffn_dropout.2-s0",
        ),
        (
            ("model/mixer=hybrid", "model/mixer@model.mixer.a=sliding_window"),
            "pronoun-hybrid-a_sliding_window-2x64-s0",
        ),
        (("logger=csv", "rerun=true", "lease=5", "sweep=mine"), "pronoun-multihead-2x64-s0"),
        (
            ("callbacks.cadence.statistics_every=null",),
            "pronoun-multihead-2x64-statistics_every_null-s0",
        ),
    ],
)
def test_a_name_says_what_was_chosen(overrides, name):
    (config,) = composed(*overrides)
    assert run_name(config) == name


def test_a_sweep_shows_what_it_varies_and_what_does_not_fit_is_counted():
    fixed = ["dataset=mqar", "dataset.num_pairs=8", "trainer.max_steps=2000", "batch_size=32"]
    more = ["trainer.val_check_interval=100", "optimizer.weight_decay=0.01"]
    configs = composed(*fixed, *more, "optimizer.lr=0.001,0.01", "seed=0,1")
    names = [run_name(config) for config in configs]
    assert len(set(names)) == 4
    assert all(re.search(r"lr1e-[23]-.*\d_more-s[01]\Z", name) for name in names)
    assert all(len(name.rpartition("-s")[0]) <= MOST_CHARACTERS + 8 for name in names)


@pytest.mark.parametrize("value", ["../../etc", "a b", "$(rm)", "ü\u202e", "x" * 300])
def test_a_name_is_a_plain_file_name(tmp_path, value):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 50)
    (config,) = composed("dataset=text", f"dataset.path={path}", "dataset.length=8")
    config = type(config)(
        config.values, config.choices, config.user_targets, overrides=(f"dataset.path={value}",)
    )
    assert re.fullmatch(r"\w[\w.-]*", run_name(config), re.ASCII)
    assert len(run_name(config)) < 100


def test_the_same_sweep_has_the_same_name_wherever_it_goes_and_another_has_another():
    words = ("dataset=parity", "variant=multihead,lstm", "optimizer.lr=1e-3,1e-2", "seed=0,1")
    name = sweep_name(composed(*words))
    assert re.fullmatch(r"parity-variant-lr-seed-[0-9a-f]{4}", name)
    elsewhere = ("runs_dir=elsewhere", "rerun=true", "trainer.threads=1")
    assert sweep_name(composed(*words, *elsewhere)) == name
    assert sweep_name(composed(*words, "batch_size=32")) != name
    assert sweep_name(composed(*words[:-1], "seed=0,1,2")) != name


def test_a_given_name_of_a_sweep_stays():
    given = name_sweep(composed("sweep=mine", "seed=0,1"))
    assert {config.values["sweep"] for config in given} == {"mine"}
    made = name_sweep(composed("seed=0,1"))
    assert len({config.values["sweep"] for config in made}) == 1
