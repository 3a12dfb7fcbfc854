"""What of an override does not fit is told with what was meant, and a sweep has runs."""

import shlex

import pytest

from attnlab.config import compose, search_path, sweep_overrides
from attnlab.config.composition import MOST_CELLS
from attnlab.errors import ConfigError
from tests.prose import says

MEANT = {
    "number_for_a_choice": ["depth=12"],
    "number_for_a_size": ["size=128"],
    "number_for_a_class": ["optimizer=3"],
    "below_another": ["model.num_heads=2"],
    "in_a_section": ["lr=0.1"],
    "similar_in_a_section": ["num_layer=3"],
    "group_in_a_group": ["mixer=multihead"],
    "other_name_of_a_section": ["data.seed=3"],
    "choice_that_was_asked": ["dataset=mqar", "dataset.lenght=64"],
    "choice_of_a_part": ["model/ffn=moe", "model.ffn.num_expert=3"],
    "variant_that_lacks_it": ["variant=lstm", "model/mixer=multihead"],
    "comma_at_the_end": ["seed=1,"],
    "comma_and_a_space": ["dataset=mqar,"],
    "quotes_inside": ['runs_dir=/tmp/a "b", c'],
    "text_in_a_list": ["callbacks.recorder.texts=[it didn't cross, it was tired]"],
    "open_bracket": ["model.mixer={num_heads: 4"],
    "no_value": ["trainer.max_steps"],
    "no_key": ["=3"],
    "misspelt_debug": ["debug=overfti"],
    "no_experiment": ["experiment=mine"],
    "run_dir_of_hydra": ["hydra.run.dir=/tmp/x"],
    "launcher_of_hydra": ["hydra/launcher=joblib"],
    "searchpath_of_hydra": ["hydra.searchpath=[file:///tmp]"],
    "other_setting_of_hydra": ["hydra.verbose=true"],
    "part_of_a_name": ["steps=9"],
    "name_of_another_library": ["learning_rate=0.1"],
    "part_of_a_name_rather_than_far_away": ["layers=3"],
    "section_without_a_choice": ["variant=null"],
    "deleted_knob": ["~seed"],
    "deleted_callbacks": ["~callbacks"],
    "no_cadence": ["callbacks.cadence=null"],
    "choice_that_is_a_number": ["trainer.precision=16"],
    "misspelt_in_a_section": ["max_stepz=1"],
    "choice_below_another": ["mixer=lstm"],
    "knob_of_the_root": ["data.batch_size=64"],
    "knob_of_another_mixer": ["model/mixer=lstm", "model.mixer.num_heads=2"],
    "knob_of_no_mixer_of_the_variant": ["model.mixer.kernel_size=3"],
    "knob_of_another_loss": ["objective=masked", "objective.causal=true"],
    "deleted_schedule": ["~schedule"],
    "deleted_part": ["~model/block"],
    "deleted_variant": ["~variant"],
    "added_choice": ["+variant=lstm"],
    "forced_choice": ["++logger=csv"],
    "added_experiment": ["+experiment=recal"],
    "sweeper_of_hydra": ["hydra/sweeper=optuna"],
    "sweep_dir_of_hydra": ["hydra.sweep.dir=/tmp/x"],
    "launcher_of_a_cluster": ["hydra/launcher=submitit_slurm"],
    "job_of_hydra": ["hydra.job.chdir=true"],
}


@pytest.mark.parametrize("name", MEANT)
def test_what_was_meant_is_said(composed, name):
    with pytest.raises(ConfigError) as raised:
        composed(*MEANT[name])
    (fault,) = raised.value.faults
    says(f"config.meant.{name}", fault)
    if "did you mean `" in fault and "no such choice" not in fault:
        # A hint that leads to another refusal is none.
        *before, last = MEANT[name]
        key, _, value = last.partition("=")
        meant = fault.partition("did you mean `")[2].partition("`")[0]
        if f": {key.rpartition('.')[0]} has no" in fault and "." not in meant:
            # One that is misspelt in its own section.
            meant = f"{key.rpartition('.')[0]}.{meant}"
        assert composed(*before, meant if "=" in meant else f"{meant}={value}")


@pytest.mark.parametrize("text", ["runs_dir=/tmp/a b,(c)", 'runs_dir=a"b\\c', "runs_dir=it's: so"])
def test_the_quotes_that_are_proposed_give_the_text_that_was_meant(composed, text):
    with pytest.raises(ConfigError) as raised:
        composed(text)
    (proposed,) = shlex.split(raised.value.faults[0].partition("in quotes: ")[2])
    assert composed(proposed).values["runs_dir"] == text.partition("=")[2]


def test_a_choice_that_asks_for_what_is_not_there_says_what(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /model/position: none\n"
    (tmp_path / "experiment/mine.yaml").write_text(text)
    with search_path(tmp_path) as own, pytest.raises(ConfigError) as raised:
        compose(["variant=lstm", "experiment=mine"], own)
    says("config.meant.experiment_on_another_model", "\n".join(raised.value.faults))


EMPTY = {
    "no_choice": ["variant=glob(zzz*)"],
    "no_number": ["seed=range(3,1)"],
    "interval": ["optimizer.lr=interval(0.1,0.2)"],
    "far_too_many": ["seed=range(0,1000000000)"],
    "product_too_large": ["seed=range(0,1000)", "optimizer.lr=range(1,1000)"],
    "unreadable": ["seed=1,2,", "depth"],
    "twice": ["seed=0,1", "seed=2,3"],
    "no_step": ["seed=range(1,5,0)"],
    "globs_in_a_list": ["variant=glob(l*),glob(m*)"],
    "sorted_and_more": ["seed=sort(2,1),3"],
    "tag": ["optimizer.lr=tag(a,1e-3)"],
    "tag_of_values": ["seed=tag(a,choice(1,2))"],
    "misspelt_function": ["seed=rnage(3)"],
    "function_without_its_end": ["seed=range(3"],
    "range_of_words": ["seed=range(a,b)"],
    "glob_of_no_group": ["model.num_layers=glob(*)"],
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_sweep_without_a_run_or_with_far_too_many_is_refused(name):
    with search_path(), pytest.raises(ConfigError) as raised:
        sweep_overrides(["depth=base", *EMPTY[name]])
    says(f"config.sweep.{name}", "\n".join(raised.value.faults))


def test_a_sweep_is_the_product_of_all_kinds_of_values_in_their_order():
    with search_path():
        runs = sweep_overrides(["seed=0,1", "variant=glob(l*)", "+x=range(1,3)", "runs_dir=a"])
    assert len(runs) == 8 < MOST_CELLS
    assert runs[0] == ["seed=0", "variant=lstm", "+x=1", "runs_dir=a"]
    assert runs[-1] == ["seed=1", "variant=lstm_attention", "+x=2", "runs_dir=a"]
