"""Runs at once, each in a process of its own; what dies or stands still is said, and no run lost.

The processes are forked from one that has imported everything and computed nothing, so that imports
are paid once and no run finds anything of another one.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from attnlab.config import Config
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.interruption import STOPPING, Interrupted, delay_interruption, raise_on_stop_signals
from attnlab.launch.devices import deal_gpus, limit_memory, visible_gpus
from attnlab.launch.launcher import (
    RETRIED,
    Launcher,
    Outcomes,
    Pass,
    Retried,
    run_to_outcome,
)
from attnlab.launch.outcome import Outcome
from attnlab.launch.standstill import StandstillWatch
from attnlab.launch.sweep_progress import PlaceInSweep
from attnlab.printable import tolerate_closed_output
from attnlab.ranges import Count, FewCountOrZero, Positive, ranged

LOOK_SECONDS = 1.0
"""How often is looked whether a run stands still."""


@dataclass
class Worker:
    """A process that does one run."""

    index: int
    process: BaseProcess
    slot: int
    """Which of the runs at once it is."""
    watch: StandstillWatch | None = None
    """None before its attempt has begun."""
    run_dir: Path | None = None
    """The directory of its run; None before its attempt has begun."""
    is_hung: bool = False
    """Whether it was ended as its run stood still."""


@ranged
class Processes(Launcher):
    """Does several runs at once, each in a process of its own, and deals GPUs out to them."""

    def __init__(
        self,
        *,
        jobs: Count | None = None,
        per_gpu: Count | None = None,
        memory_limit: Positive | None = None,
        hang_leases: Positive = 40.0,
        retries: FewCountOrZero = 2,
        retry_on: Sequence[Retried] = RETRIED,
    ) -> None:
        super().__init__(retries=retries, retry_on=retry_on)
        self.gpus = visible_gpus()
        if jobs is None:
            num_cores = os.cpu_count() or 1
            jobs = len(self.gpus) * (per_gpu or 1) or max(1, num_cores // 2)
        self.jobs, self._per_gpu, self._memory_limit = jobs, per_gpu, memory_limit
        self._hang_leases = hang_leases

    def require_possible(self, configs: Sequence[Config]) -> None:
        accelerators = {config.values["trainer"].get("accelerator") for config in configs}
        if self._per_gpu is not None and (not self.gpus or accelerators == {"cpu"}):
            reason = "the runs are for the CPU" if self.gpus else "torch sees none here"
            raise RequestError(
                f"launcher.per_gpu={self._per_gpu} needs a GPU, and {reason}; leave it out"
            )
        if self._per_gpu is not None and self.jobs > self._per_gpu * len(self.gpus):
            raise RequestError(
                f"{self.jobs} runs at once on {len(self.gpus)} GPUs are more than "
                f"launcher.per_gpu={self._per_gpu} allows; fewer at once (-j), or a larger per_gpu"
            )

    def outcomes(
        self, configs: Sequence[Config], indices: Sequence[int], this_pass: Pass
    ) -> Outcomes:
        queue = deque(indices)
        workers: dict[Connection, Worker] = {}
        interrupted = False
        try:
            while workers or (queue and not interrupted):
                try:
                    if not interrupted:
                        self._start_queued(queue, workers, configs, this_pass)
                    ready_connections = wait(list(workers), LOOK_SECONDS)
                except Interrupted:
                    interrupted = True
                    _terminate_all(workers)
                    continue
                for connection in ready_connections:
                    assert isinstance(connection, Connection)
                    worker = workers[connection]
                    message = _receive(connection)
                    if isinstance(message, Path):
                        lease = configs[worker.index].values["lease"]
                        worker.watch = StandstillWatch(message, lease * self._hang_leases)
                        worker.run_dir = message.parents[1]
                        continue
                    del workers[connection]
                    connection.close()
                    worker.process.join()
                    if message is None and not interrupted:
                        message = self._outcome_of_death(configs[worker.index], worker)
                    # What was asked to stop has nothing to say; another may have been ended.
                    if message and not (interrupted and message.status == "interrupted"):
                        yield worker.index, message
                _end_what_stands_still(workers)
        finally:
            # Somebody may have stopped asking while processes run.
            _terminate_all(workers)
            for worker in workers.values():
                worker.process.join()
        if interrupted:
            raise Interrupted

    def _start_queued(
        self,
        queue: deque[int],
        workers: dict[Connection, Worker],
        configs: Sequence[Config],
        this_pass: Pass,
    ) -> None:
        """Move runs from the queue to the running ones, until `jobs` of them run."""
        while queue and len(workers) < self.jobs:
            with delay_interruption():
                index = queue.popleft()
                title = this_pass.sweep_progress.title(index)
                if title:
                    this_pass.console.print(f"{title}: starts")
                slot = min({*range(self.jobs)} - {worker.slot for worker in workers.values()})
                surroundings = Surroundings(
                    deal_gpus(self.gpus, slot, configs[index]), self._memory_limit
                )
                connection, process = _start_process(configs[index], this_pass, title, surroundings)
                workers[connection] = Worker(index, process, slot)

    def _outcome_of_death(self, config: Config, worker: Worker) -> Outcome:
        """Return the outcome of a run whose process ended without a word."""
        directory = worker.run_dir or Path(config.values["runs_dir"])
        if worker.is_hung:
            assert worker.watch is not None
            seconds = config.values["lease"] * self._hang_leases
            note = (
                f"it stood still after step {worker.watch.step} for {seconds:g} s and was ended; "
                "more leases (launcher.hang_leases) wait longer"
            )
            return Outcome(directory, "failed", note=note, cause="hung")
        exit_code = worker.process.exitcode or 0
        manner = (
            f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with code {exit_code}"
        )
        note = f"its process died {manner}; less memory (batch_size) or fewer at once (-j) may help"
        return Outcome(directory, "failed", note=note, cause="killed")


@dataclass(frozen=True)
class Surroundings:
    """What the process of a run may use."""

    gpus: str | None
    """The GPUs that it sees, as CUDA_VISIBLE_DEVICES states them; None for all."""
    memory_limit: float | None
    """In GiB; None for no limit."""


def _start_process(
    config: Config, this_pass: Pass, title: str, surroundings: Surroundings
) -> tuple[Connection, BaseProcess]:
    """Start the process of a run; its attempt and its outcome will come through the connection."""
    # Elsewhere than on Linux, the system's libraries do not bear a fork.
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["attnlab.launch.processes", "attnlab.launch.run"])
    connection, child_connection = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_in_process,
        args=(
            config,
            this_pass.postpones,
            frozenset(this_pass.known_notes),
            # A console cannot be handed over.
            this_pass.console.stderr,
            title,
            surroundings,
            child_connection,
        ),
    )
    # A terminal's Ctrl-C reaches the whole group. What is started here inherits that it is not
    # heard yet, and hears it once it can save.
    # The tracker comes first, since its start unblocks signals.
    resource_tracker.ensure_running()
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
    child_connection.close()
    return connection, process


def _receive(connection: Connection) -> Path | Outcome | None:
    """Return the attempt that a process has begun, or its run's outcome; None where it died."""
    try:
        return connection.recv()
    except EOFError:
        return None


def _end_what_stands_still(workers: dict[Connection, Worker]) -> None:
    """Kill the processes whose runs stand still; a paused process hears nothing else."""
    for worker in workers.values():
        if worker.watch is not None and worker.watch.stands_still:
            worker.is_hung = True
            worker.process.kill()


def _terminate_all(workers: dict[Connection, Worker]) -> None:
    for worker in workers.values():
        worker.process.terminate()


def _run_in_process(
    config: Config,
    postpones: bool,
    known_notes: frozenset[str],
    stderr: bool,
    title: str,
    surroundings: Surroundings,
    parent_connection: Connection,
) -> None:
    """Do a run in a process of its own, which hears of Ctrl-C from its parent alone."""
    with tolerate_closed_output(), raise_on_stop_signals():
        try:
            # The terminal would send a second Ctrl-C beside the parent's request.
            os.setpgrp()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            threading.Thread(target=_stop_with_parent, daemon=True).start()
            if surroundings.gpus is not None:
                # CUDA reads this when it is first used, which is after this.
                os.environ["CUDA_VISIBLE_DEVICES"] = surroundings.gpus
            limit_memory(surroundings.memory_limit)
            # Bars of several processes would write over each other.
            console = Console(soft_wrap=True, force_terminal=False, stderr=stderr)
            place = PlaceInSweep(
                title, announce_attempt=lambda path: _send(parent_connection, path)
            )
            outcome = run_to_outcome(config, Pass(console, postpones, set(known_notes)), place)
        except Interrupted as interrupted:
            outcome = Outcome(Path(config.values["runs_dir"]), "interrupted", note=str(interrupted))
        with suppress(Interrupted), delay_interruption():
            _send(parent_connection, outcome)


def _send(parent_connection: Connection, message: Path | Outcome) -> None:
    # A parent that is gone needs no answer, and one that asks to stop now is answered so.
    with suppress(OSError):
        parent_connection.send(message)


def _stop_with_parent() -> None:
    """Ask this process to stop when the one that started it is gone."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
