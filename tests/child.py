"""Training in processes of its own, which tests may kill: forked from one that has imported all."""

import io
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnlab.config import compose, search_path
from attnlab.console import Console
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.record import Record, find_runs
from attnlab.run_record.result import AttemptError, FailedAttempt, RunResult

TINY = (
    "dataset.num_train=60",
    "dataset.num_validation=20",
    "dataset.num_test=20",
    "batch_size=10",
    "model.d_model=16",
    "model.num_layers=1",
    "model.dropout=0.1",
    "trainer.max_steps=9",
    "trainer.val_check_interval=4",
    "trainer.accumulate_grad_batches=2",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "schedule.warmup_steps=2",
    "callbacks.cadence.log_every=1",
    "callbacks.cadence.checkpoint_every=3",
    "callbacks.cadence.statistics_every=4",
    "callbacks.recorder.num_probes=2",
)
"""Nine steps with dropout, shuffling over epochs, accumulation, validation and checkpoints."""

TABLES = ("train", "validation", "patterns", "heads", "vectors", "evidence")

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.child", "tests.warm", "attnlab.launch.run"])


def start(
    runs_dir: Path,
    *overrides: str,
    fault: str = "",
    lease: float = 0.3,
    prepare: Callable[[], Any] | None = None,
) -> Any:
    """Begin a tiny run in a process of its own."""
    arguments = (str(runs_dir), overrides, fault, lease, prepare)
    runs_dir.mkdir(parents=True, exist_ok=True)
    process = PROCESSES.Process(target=_train, args=arguments)
    process.start()
    return process


def train(runs_dir: Path, *overrides: str, **options: Any) -> int:
    """Do a tiny run to its end, and give the exit code (negative: the signal)."""
    process = start(runs_dir, *overrides, **options)
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def _train(
    runs_dir: str,
    overrides: tuple[str, ...],
    fault: str,
    lease: float,
    prepare: Callable[[], Any] | None,
) -> None:
    from attnlab.interruption import STOPPING, Interrupted

    # Where a test has trained with `-j` before, the server that forks was started deaf to signals.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    from attnlab.launch.run import run

    os.environ["ATTNLAB_FAULT"] = fault
    if prepare is not None:
        prepare()
    said = io.StringIO()
    with search_path() as own:
        config = compose([*TINY, *overrides, f"runs_dir={runs_dir}", f"lease={lease}"], own)
    try:
        outcome = run(config, Console(file=said))
    except Interrupted:
        os._exit(130)
    except OSError:
        os._exit(1)
    note = {"status": outcome.status, "note": outcome.note, "said": said.getvalue()}
    Path(runs_dir, f".outcome-{os.getpid()}").write_text(json.dumps(note))
    Path(runs_dir, ".outcome").write_text(json.dumps(note))
    os._exit(0 if outcome.ok else 1)


def outcome(runs_dir: Path) -> dict[str, str]:
    """Read what the last process said of its run."""
    return json.loads((runs_dir / ".outcome").read_text())


def only_record(runs_dir: Path) -> Record:
    (record,) = find_runs(runs_dir, all_generations=True)
    return record


def finished(runs_dir: Path) -> RunResult:
    """Give the published result of the only run."""
    found = only_record(runs_dir).result
    assert found is not None
    return found


def error(record: Record) -> AttemptError:
    """Give the error that the first attempt ended with."""
    summary = record.attempts[0].summary
    assert isinstance(summary, FailedAttempt)
    return summary.error


def weights(runs_dir: Path) -> dict[str, Any]:
    """Load the weights of the newest checkpoint."""
    import torch

    checkpoint, damaged = newest_checkpoint(only_record(runs_dir).path)
    assert checkpoint is not None
    assert not damaged
    state = torch.load(io.BytesIO(checkpoint.content), weights_only=True)
    return {"step": checkpoint.step, **state["state_dict"]}


def result(runs_dir: Path) -> tuple[dict[str, Any], list[Any]]:
    """Give the final weights and every row of the tables, in order."""
    record = only_record(runs_dir)
    return weights(runs_dir), [record.rows(name).to_pylist() for name in TABLES]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    import time

    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


KILLED = -signal.SIGKILL
