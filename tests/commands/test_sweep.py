"""`attnlab sweep`: the list of cells, their states from records alone, retry and cancel."""

import json
import os
import subprocess
import sys
import time

import pytest

from attnlab.analysis.sweep_status import sweep_status
from attnlab.cli import main
from attnlab.run_record.record import find_runs
from attnlab.run_record.sweep_record import ListedCell, SweepRecord
from tests.child import TINY, wait_for
from tests.run_record.test_record import died


def train(runs_dir, *words: str) -> int:
    return main(["train", *TINY, f"runs_dir={runs_dir}", "sweep=pair", *words])


def sweep(runs_dir, *words: str) -> int:
    return main(["sweep", *words, "--runs-dir", str(runs_dir)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the runs of a sweep of two."""
    runs_dir = tmp_path_factory.mktemp("sweep")
    assert train(runs_dir, "-m", "seed=0,1") == 0
    return runs_dir


def test_a_sweep_lists_its_cells_with_the_states_of_their_runs(trained, capsys):
    assert sweep(trained, "list") == 0
    assert "pair" in (out := capsys.readouterr().out)
    assert "2 finished" in out
    assert sweep(trained, "status", "pair", "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["states"] == {"finished": 2}
    assert [cell["label"] for cell in report["cells"]] == ["seed=0", "seed=1"]
    assert {cell["run"] for cell in report["cells"]} == {r.name for r in find_runs(trained)}
    assert [cell["step"] for cell in report["cells"]] == [9, 9]
    assert (report["launches"], report["seconds_left"]) == ([], None)
    assert sweep(trained, "status", "pair") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sweep pair: 2 finished"


def test_the_state_is_that_of_the_records_whatever_the_list_says(trained, tmp_path):
    """A cell whose run was moved away has not begun; one that died is killed."""
    listed = SweepRecord(trained, "pair").cells
    record = SweepRecord(tmp_path, "pair")
    record.add(listed, threads=1)
    assert sweep_status(tmp_path, "pair").states == {"not begun": 2}
    run = find_runs(trained)[0]
    died(tmp_path / run.name, 4, identity=run.identity)
    status = sweep_status(tmp_path, "pair")
    assert status.states == {"killed": 1, "not begun": 1}
    (killed,) = (cell for cell in status.cells if cell.state == "killed")
    assert (killed.step, killed.attempts, killed.cause) == (4, 1, None)


def test_a_new_value_is_a_new_cell_and_the_old_ones_are_skipped(tmp_path, capsys):
    assert train(tmp_path, "-m", "seed=0") == 0
    assert train(tmp_path, "-m", "seed=0,1") == 0
    assert "1 skipped, 1 finished; sweep pair" in capsys.readouterr().out
    assert len(SweepRecord(tmp_path, "pair").cells) == 2


def test_a_sweep_keeps_its_threads_whatever_runs_at_once(tmp_path, capsys):
    """Other threads make other runs, so another -j must not train all of it again."""
    words = [word for word in TINY if not word.startswith("trainer.threads")]
    place = [f"runs_dir={tmp_path}", "sweep=pair", "-m", "seed=0,1"]
    assert main(["train", *words, *place, "-j", "2"]) == 0
    capsys.readouterr()
    assert main(["train", *words, *place]) == 0
    assert "2 runs: 2 skipped" in capsys.readouterr().out
    assert len(find_runs(tmp_path)) == 2


def test_retry_trains_what_is_not_finished_and_nothing_else(trained, tmp_path, capsys):
    SweepRecord(tmp_path, "pair").add(SweepRecord(trained, "pair").cells, threads=1)
    run = find_runs(trained)[0]
    for _ in range(3):
        died(tmp_path / run.name, 4, identity=run.identity)
    # Given up after three deaths, which retry=true overrules.
    assert sweep(tmp_path, "retry", "pair") == 0
    assert "2 runs: 2 finished" in capsys.readouterr().out
    assert {r.name for r in find_runs(tmp_path)} == {r.name for r in find_runs(trained)}
    assert sweep(tmp_path, "retry", "pair") == 0
    assert "no run is to be tried again" in capsys.readouterr().out
    assert sweep(tmp_path, "retry", "pair", "--cause", "memory") == 0


def test_what_diverged_is_tried_again_only_when_asked_and_beside_the_old_run(tmp_path, capsys):
    assert train(tmp_path, "-m", "seed=0", "optimizer.lr=1e30") == 1
    assert sweep(tmp_path, "status", "pair") == 0
    assert "failed: diverged" in capsys.readouterr().out
    assert sweep(tmp_path, "retry", "pair") == 0
    assert "no run is to be tried again" in capsys.readouterr().out
    assert sweep(tmp_path, "retry", "pair", "--cause", "diverged") == 1
    assert len(find_runs(tmp_path, all_generations=True)) == 2


def test_the_configs_of_others_are_not_taken_from_a_list(trained, tmp_path, capsys):
    cells = SweepRecord(trained, "pair").cells
    listed = [type(cell)(cell.overrides, cell.identity_hash, "/elsewhere/mine") for cell in cells]
    SweepRecord(tmp_path, "pair").add(listed, threads=1)
    assert sweep(tmp_path, "retry", "pair") == 2
    assert "--config-dir /elsewhere/mine; give that again" in " ".join(
        capsys.readouterr().err.split()
    )
    assert find_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status", "pear"], "has no sweep 'pear'; there are pair"),
        (["status"], "expected the name of a sweep"),
        (["list", "pair"], "expected no name"),
        (["retry", "pair", "-j", "0"], "--jobs 0 must be at least 1"),
    ],
)
def test_a_wrong_request_is_answered(trained, tmp_path, capsys, words, says):
    if words[-1] == "0":
        SweepRecord(tmp_path, "pair").add(SweepRecord(trained, "pair").cells, threads=1)
        trained = tmp_path
    assert sweep(trained, *words) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_names_and_errors_of_others_are_text(tmp_path, capsys):
    record = SweepRecord(tmp_path, "pair")
    hostile = ListedCell(("seed=\x1b[31m[red]0",), "0123456789", None)
    record.add([hostile, ListedCell(("seed=1",), "1123456789", None)], threads=1)
    assert sweep(tmp_path, "status", "pair") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]0" in out


LONG = ("trainer.max_steps=100000", "trainer.val_check_interval=100000")


@pytest.mark.slow
def test_cancel_stops_what_trains_and_saves_it(tmp_path, capsys):
    words = [*LONG, "callbacks.cadence.checkpoint_every=100000", f"runs_dir={tmp_path}"]
    words += ["-m", "-j", "2", "seed=0,1,2", "sweep=pair"]
    process = subprocess.Popen(
        [sys.executable, "-m", "attnlab.cli", "train", *TINY, *words], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(
            lambda: (
                len(list(tmp_path.glob("*/attempts/1/beat"))) == 2
                and sweep_status(tmp_path, "pair").states.get("running") == 2
                and min(c.step for c in sweep_status(tmp_path, "pair").cells[:2]) > 0
            ),
            240,
        )
        status = sweep_status(tmp_path, "pair")
        assert [(launch.pid, launch.jobs) for launch in status.launches] == [(process.pid, 2)]
        assert status.states == {"running": 2, "not begun": 1}
        start = time.monotonic()
        assert sweep(tmp_path, "cancel", "pair") == 0
        assert time.monotonic() - start < 60
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert f"process {process.pid} on {os.uname().nodename}: stopped" in capsys.readouterr().out
    status = sweep_status(tmp_path, "pair")
    assert status.states == {"interrupted": 2, "not begun": 1}
    assert status.launches == []
    assert len(list(tmp_path.glob("*/attempts/1/checkpoints/*.ckpt"))) == 2
