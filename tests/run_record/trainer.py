"""A trainer without a model, in processes that tests may kill.

Each is forked from a process that has imported all and has one thread; `Children` talks to it.
"""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from attnlab.run_record.attempt import AlreadyClaimed, Attempt
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.record import Record, plan_resume
from tests.fabricated import failed, result

IDENTITY = {"variant": "fake", "seed": 0}
STEPS = 9
FINISHED, FAILED, LOST, TAKEN, BROKEN = 0, 1, 3, 4, 99
KILLED = -signal.SIGKILL
RESTING = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)


def train(run_dir: Path) -> int:
    """Do what is missing of nine steps of a congruence, with a checkpoint after each even one."""
    if plan_resume(Record(run_dir)).action == "skip":
        return FINISHED
    attempt = None
    try:
        checkpoint, _ = newest_checkpoint(run_dir)
        done, state, origin = 0, 1, None
        if checkpoint is not None:
            done, state = struct.unpack("<qq", checkpoint.content)
            origin = {name: getattr(checkpoint, name) for name in ("attempt", "step", "sha256")}
        attempt = Attempt.claim(run_dir, IDENTITY, origin)
        for step in range(done + 1, STEPS + 1):
            state = state * 48271 % 2147483647
            attempt.beat(step)
            attempt.append("train", [{"step": step, "loss": state / 2**31}])
            if step % 4 == 0:
                attempt.append("validation", [{"step": step, "loss": state / 2**32}])
            if step % 2 == 0:
                attempt.save(step, struct.pack("<qq", step, state))
        won = attempt.finish(result(identity=IDENTITY, metrics={"loss": state / 2**31}))
        return FINISHED if won else LOST
    except AlreadyClaimed:
        return TAKEN
    except OSError as error:
        if attempt is not None:
            with suppress(OSError):
                attempt.end(failed("disk", step=0, message=str(error)))
        return FAILED


def race(run_dir: Path, wins: int) -> int:
    """Claim until `wins` attempts are ours, and leave word of their numbers."""
    won: list[int] = []
    while len(won) < wins:
        with suppress(AlreadyClaimed):
            attempt = Attempt.claim(run_dir, IDENTITY)
            won.append(attempt.number)
            attempt.close()
    run_dir.with_name(f"won-{os.getpid()}.json").write_text(json.dumps(won))
    return FINISHED


class Children:
    """The way to those processes; leaving it ends whatever still runs."""

    def __enter__(self) -> "Children":
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()

    def start(self, run_dir: Path, **job: Any) -> int:
        """Begin a child and give its pid."""
        return self._ask({"run_dir": str(run_dir), **job})

    def wait(self, pid: int) -> int:
        """Give the exit code of a child that ends (negative: the signal)."""
        return self._ask({"wait": pid})

    def train(self, run_dir: Path, **job: Any) -> int:
        """Train in a child to its end."""
        code = self.wait(self.start(run_dir, **job))
        assert code != BROKEN, "the trainer has a fault of its own; its traceback is above"
        return code

    def pause(self, run_dir: Path, fault: str) -> int | None:
        """Train in a child until it is stopped, and give its pid; None if it was never stopped."""
        pid = self.start(run_dir, fault=fault)
        if self.rests(pid) == psutil.STATUS_STOPPED:
            return pid
        self.wait(pid)
        return None

    def rests(self, pid: int) -> str:
        """Give the status of a child when it is stopped, or over but not yet waited for."""
        while (status := psutil.Process(pid).status()) not in RESTING:
            time.sleep(0.001)
        return status

    def _ask(self, job: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def serve() -> None:
    """Fork a child for each line on standard input, or wait for one."""
    # A first run imports what is imported late, a fifth of a second that no child need pay.
    with TemporaryDirectory() as warm:
        assert train(Path(warm) / "run") == FINISHED
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork() or _child(job)
        print(answer, flush=True)


def _child(job: dict[str, Any]) -> int:
    code = BROKEN
    try:
        os.environ["ATTNLAB_FAULT"] = job.get("fault", "")
        if "largest" in job:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
        run_dir = Path(job["run_dir"])
        code = race(run_dir, job["wins"]) if "wins" in job else train(run_dir)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
