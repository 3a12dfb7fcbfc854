"""Mistakes that somebody new makes, each answered in one clear message.

What attnlab says to each stands in tests/prose.yaml, below `mistakes.`.
"""

from pathlib import Path

import pytest

from attnlab.cli import main
from tests.child import TINY
from tests.prose import says
from tests.refusals import UNBROKEN

TRAIN = {
    "no_equals": ["variant", "multihead"],
    "choice_as_option": ["--variant=lstm"],
    "spaces_around_equals": ["variant", "=", "lstm"],
    "swapped_letters": ["varaint=lstm"],
    "dataset_without_its_number": ["dataset=wikitext"],
    "seed_in_words": ["seed=one"],
    "half_a_seed": ["seed=1.5"],
    "no_batch": ["batch_size=0"],
    "odd_width": ["model.d_model=63"],
    "precision_of_another_library": ["trainer.precision=fp16"],
    "accelerator_of_another_library": ["trainer.accelerator=cuda"],
    "optimizer_that_is_none": ["optimizer=adam"],
    "schedule_that_is_none": ["schedule=linear"],
    "misspelt_mode": ["logger=wandb", "logger.wandb.mode=onlien"],
    "sweep_without_m": ["variant=lstm,moe"],
    "range_of_a_shell": ["-m", "seed=0..3"],
    "list_for_a_sweep": ["-m", "seed=[0,1,2]"],
    "jobs_without_m": ["-j", "4", "seed=0"],
    "jobs_in_words": ["-m", "-j", "two", "seed=0,1"],
    "corpus_without_a_path": ["dataset=text"],
    "corpus_that_is_not_there": ["dataset=text", "dataset.path=nowhere.txt"],
    "fewer_examples_than_a_batch": ["dataset.num_train=5"],
    "knob_of_what_is_off": ["callbacks.early_stop.patience=3"],
    "evidence_on_another_task": ["evidence=bleu"],
    "metric_that_is_evidence": ["metric=bleu"],
    "nothing_to_extend": ["extend=true"],
    "file_for_a_directory": ["--config-dir", "some.yaml"],
    "dot_for_a_slash": ["model.mixer=multihead"],
    "dot_for_a_slash_of_a_part": ["model.position=rope"],
    "number_in_quotes": ["model.mixer.num_heads='4'"],
    "steps_as_a_float": ["trainer.max_steps=1e3"],
    "objective_of_other_data": ["dataset=mqar", "objective=seq2seq"],
    "nowhere": ["runs_dir="],
    "added_knob": ["+model.foo=3"],
    "deleted_section": ["~dataset"],
    "nothing_held": ["dataset.held=0"],
    "yes_for_true": ["rerun=yes!"],
    "boolean_for_a_number": ["optimizer.weight_decay=false"],
    "list_for_a_number": ["optimizer.lr=[0.1]"],
    "class_for_a_choice": ["model/mixer=MultiHead"],
    "hydra_help": ["--hydra-help"],
    "config_name_of_hydra": ["--config-name", "mine"],
    "config_path_of_hydra": ["-cp", "conf", "seed=1"],
    "completion_of_hydra": ["-sc", "install=bash"],
    "run_of_hydra": ["--run", "seed=1"],
    "rerun_of_hydra": ["--experimental-rerun", "job.pickle"],
    "plugins_of_hydra": ["--info", "plugins"],
    "misspelt_kind_of_config": ["--cfg", "jbo"],
    "package_of_nothing": ["--package", "model"],
    "misspelt_package": ["--cfg", "-p", "model.mixr"],
    "format_of_nothing": ["--format", "json"],
    "two_things_to_print": ["--cfg", "--dry-run"],
    "hydras_config_of_a_sweep": ["-m", "--cfg", "all", "seed=0,1"],
    "choices_of_a_sweep": ["-m", "--info", "seed=0,1"],
    "path_with_a_space": ["dataset=text", "dataset.path=my", "reviews.csv"],
    "path_with_a_space_and_a_comma": ["dataset=text", "dataset.path=a,b", "c.txt"],
    "key_without_a_value_behind_another": ["dataset=mqar", "seed"],
    "impossible_cells": ["-m", "model/position=rope,none", "model/mixer=multihead,gated_delta"],
    "a_mistake_is_not_skipped": ["-m", "variant=lstm,lstmm", "skip_impossible=true"],
    "nothing_is_possible": ["-m", "model.d_model=63,65", "skip_impossible=true"],
}
OTHERS = {
    "other_command": ["run", "variant=lstm"],
    "shouted_command": ["TRAIN"],
    "no_such_run": ["compare", "nosuch"],
    "short_metric": ["compare", "--metric", "acc"],
    "misspelt_key": ["compare", "--by", "varient"],
    "no_such_run_to_attend": ["attend", "nosuch", "a text"],
    "misspelt_split": ["evaluate", "pronoun", "--split", "tset"],
    "report_nowhere": ["report", "-o", "nowhere/report.html"],
    "report_of_another_kind": ["report", "-o", "report.pdf"],
    "group_in_the_plural": ["list", "mixers"],
    "misspelt_dataset": ["data", "show", "pronuon"],
    "misspelt_paper": ["reproduce", "pronou"],
    "length_in_words": ["bench", "--lengths", "ten"],
    "help_for_no_command": ["help", "trian"],
    "completion_of_another_shell": ["completion", "tcsh"],
    "cluster": ["train", "hydra/launcher=submitit_slurm"],
}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory) -> Path:
    """A directory with a run."""
    place = tmp_path_factory.mktemp("mistakes")
    assert main(["train", *TINY, f"runs_dir={place}"]) == 0
    return place


def refused(capsys, words: list[str], *hidden: object) -> str:
    """Give what is said to a request that is refused."""
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("name", TRAIN)
def test_a_mistake_in_training_is_answered_and_writes_nothing(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    Path("some.yaml").write_text("seed: 3\n")
    short = ["depth=shallow", "trainer.max_steps=2", "trainer.threads=1"]
    stated = {word.split("=")[0] for word in TRAIN[name]}
    words = [word for word in short if word.split("=")[0] not in stated]
    said = refused(capsys, ["train", *words, *TRAIN[name]])
    says(f"mistakes.{name}", said, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.yaml"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_mistake_elsewhere_is_answered(runs_dir, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    monkeypatch.setenv("ATTNLAB_RUNS", str(runs_dir))
    says(f"mistakes.{name}", refused(capsys, OTHERS[name]), runs_dir, tmp_path)
    assert not list(tmp_path.iterdir())
