"""Records of attnlab 0.1 are opened, asked, skipped and resumed: upgrading orphans nothing."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from attnlab.cli import main
from attnlab.config import sweep_overrides
from attnlab.experiment import Experiment
from attnlab.run_record.history import ADDED, MOVED, NESTED
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.record import Record, find_runs, hash_in_name, name_on_disk
from tests.prose import says
from tests.records import behaviour

HERE = Path(__file__).parent
RUNS = HERE / "runs"
RECIPE = yaml.safe_load((HERE / "runs.yaml").read_text())
TRAINED = {**RECIPE["finished"], **{k: RECIPE[k] for k in ("resumed", "interrupted", "failed")}}


@pytest.fixture
def runs_dir(tmp_path) -> Path:
    """Copy the records, for a test that goes on with one."""
    return Path(shutil.copytree(RUNS, tmp_path / "runs"))


def test_every_record_is_listed_in_the_state_in_which_it_was_left():
    states = {record.name: record.state for record in find_runs(RUNS)}
    assert len(states) == 17
    left = {name: state for name, state in states.items() if state != "finished"}
    assert left == {
        "pronoun-multihead-1x4-s7-0663838852": "failed",
        "pronoun-multihead-1x4-s9-e5261f2b37": "interrupted",
    }


@pytest.mark.parametrize("name", behaviour.cases())
def test_a_command_answers_as_it_did(name):
    case = behaviour.cases()[name]
    then = json.loads((behaviour.ANSWERS / f"{name}.json").read_text())
    now = behaviour.answer(case)
    compare = behaviour.lacking if isinstance(case, dict) else behaviour.differences
    assert list(compare(then, now)) == []


def test_the_same_config_finds_the_run_that_it_made(composed):
    missing = []
    for name, overrides in TRAINED.items():
        for cell in sweep_overrides([*RECIPE["shared"], *overrides]):
            experiment = Experiment(composed(*cell))
            directory = RUNS / name_on_disk(RUNS, "other-name", identity_hash(experiment.identity))
            if not directory.exists():
                missing.append(f"{name}: {cell}")
    assert missing == []


def train(runs_dir: Path, name: str) -> int:
    return main(["train", *RECIPE["shared"], *TRAINED[name], f"runs_dir={runs_dir}"])


def test_a_finished_run_is_skipped_under_another_readable_name(runs_dir, capsys):
    (path,) = runs_dir.glob("pronoun-moe-*")
    renamed = path.rename(path.with_name(path.name.replace("pronoun-moe", "an-older-name")))
    assert train(runs_dir, "moe") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(renamed)
    assert not path.exists()


def test_an_interrupted_run_ends_as_if_nothing_had(runs_dir, tmp_path):
    (path,) = runs_dir.glob("pronoun-multihead-1x4-s9-*")
    assert train(runs_dir, "interrupted") == 0
    record = Record(path)
    assert record.state == "finished"
    assert record.attempts[-1].claim["resumed_from"]["step"] == 4
    assert record.rows("train")["step"].to_pylist() == list(range(1, 9))
    assert record.rows("validation")["step"].to_pylist() == [4, 8]
    assert train(tmp_path / "anew", "interrupted") == 0
    (anew,) = find_runs(tmp_path / "anew")
    assert hash_in_name(anew.name) == hash_in_name(record.name)
    (resumed, uninterrupted) = (run.result.metrics for run in (record, anew) if run.result)
    assert list(behaviour.differences(uninterrupted, resumed)) == []


def test_a_run_that_diverged_is_refused_again(runs_dir, capsys):
    assert train(runs_dir, "failed") == 2
    says("records.refused", capsys.readouterr().out, runs_dir)


def test_no_class_of_0_1_loses_or_gains_a_knob_unsaid():
    """Where this fails, a line in src/attnlab/run_record/history.py keeps older runs findable."""
    faults = []
    ledger: dict[str, list[str]] = json.loads((HERE / "knobs.json").read_text())
    for first, knobs_then in ledger.items():
        # A logger is no part of an identity, so no run hangs on its knobs.
        if first.startswith("attnlab.logger."):
            continue
        target = MOVED.get(first, first)
        try:
            found = get_object(target)
            parameters = inspect.signature(found).parameters
        except Exception as error:  # Hydra says in many ways that there is no such thing.
            faults.append(f"{first}: no longer there ({error}); name its new path in MOVED")
            continue
        knobs = {k for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        nested = NESTED.get(target, {})
        held = {name for knob in nested.values() for name in knob.first_knobs}
        # On a knob that is no part of the identity, no run hangs either.
        added = {*ADDED.get(target, {}), *nested, *getattr(found, "not_in_identity", ())}
        faults += [f"{target}.{knob} is gone" for knob in set(knobs_then) - knobs - held]
        faults += [
            f"{target}.{knob} is new; give in ADDED the value at which nothing changes"
            for knob in knobs - set(knobs_then) - added
        ]
    assert faults == []
