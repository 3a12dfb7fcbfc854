"""Runs at once, each in a process of its own; one that dies is tried again."""

import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from attnlab.config import Config
from attnlab.console import Console
from attnlab.interruption import STOPPING, Interrupted, delay_interruption, raise_on_stop_signals
from attnlab.launch.launcher import Launcher, Outcomes, Pass, run_to_outcome
from attnlab.launch.run import Outcome
from attnlab.launch.sweep_progress import PlaceInSweep
from attnlab.printable import tolerate_closed_output
from attnlab.run_record.record import DEATHS


class Processes(Launcher):
    """Does `jobs` runs at once, each in a process of its own; one that dies is tried again."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def outcomes(
        self, configs: Sequence[Config], indices: Sequence[int], this_pass: Pass
    ) -> Outcomes:
        queue, num_deaths = deque(indices), Counter[int]()
        running: dict[Connection, tuple[int, BaseProcess]] = {}
        interrupted = False
        try:
            while running or (queue and not interrupted):
                try:
                    if not interrupted:
                        self._start_queued(queue, running, configs, this_pass)
                    ready_connections = wait(list(running))
                except Interrupted:
                    interrupted = True
                    _terminate_all(running)
                    continue
                for connection in ready_connections:
                    assert isinstance(connection, Connection)
                    index, process = running.pop(connection)
                    outcome = _receive_outcome(connection, process)
                    if outcome is not None:
                        # What was asked to stop has nothing to say; another may have been ended.
                        if not (interrupted and outcome.status == "interrupted"):
                            yield index, outcome
                    elif interrupted:
                        # It was stopped before it could listen.
                        continue
                    elif this_pass.postpones:
                        yield index, Outcome(Path(), "dead")
                    else:
                        num_deaths[index] += 1
                        if num_deaths[index] < DEATHS:
                            queue.append(index)
                        else:
                            yield index, _outcome_of_deaths(configs[index], process)
        finally:
            # Somebody may have stopped asking while processes run.
            _terminate_all(running)
            for _, process in running.values():
                process.join()
        if interrupted:
            raise Interrupted

    def _start_queued(
        self,
        queue: deque[int],
        running: dict[Connection, tuple[int, BaseProcess]],
        configs: Sequence[Config],
        this_pass: Pass,
    ) -> None:
        """Move runs from the queue to the running ones, until `jobs` of them run."""
        while queue and len(running) < self.jobs:
            with delay_interruption():
                index = queue.popleft()
                title = this_pass.sweep_progress.title(index)
                if title:
                    this_pass.console.print(f"{title}: starts")
                connection, process = _start_process(configs[index], this_pass, title)
                running[connection] = index, process


def _start_process(config: Config, this_pass: Pass, title: str) -> tuple[Connection, BaseProcess]:
    """Start the process of a run; its outcome will come through the connection."""
    # Forked from a process that has imported everything and computed nothing; elsewhere than on
    # Linux, the system's libraries do not bear a fork.
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["attnlab.launch.processes"])
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


def _receive_outcome(connection: Connection, process: BaseProcess) -> Outcome | None:
    """Return what a process says of its run; None where it died."""
    try:
        outcome = connection.recv()
    except EOFError:
        outcome = None
    connection.close()
    process.join()
    return outcome


def _terminate_all(running: dict[Connection, tuple[int, BaseProcess]]) -> None:
    for _, process in running.values():
        process.terminate()


def _outcome_of_deaths(config: Config, process: BaseProcess) -> Outcome:
    """Return the outcome of a run whose process died too often, the last time as `process` did."""
    exit_code = process.exitcode or 0
    manner = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with code {exit_code}"
    return Outcome(
        Path(config.values["runs_dir"]),
        "failed",
        note=f"its process died {manner}, {DEATHS} times; less memory (batch_size) or fewer at "
        "once (-j) may help",
    )


def _run_in_process(
    config: Config,
    postpones: bool,
    known_notes: frozenset[str],
    stderr: bool,
    title: str,
    parent_connection: Connection,
) -> None:
    """Do a run in a process of its own, which hears of Ctrl-C from its parent alone."""
    with tolerate_closed_output(), raise_on_stop_signals():
        try:
            # The terminal would send a second Ctrl-C beside the parent's request.
            os.setpgrp()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            threading.Thread(target=_stop_with_parent, daemon=True).start()
            # Bars of several processes would write over each other.
            console = Console(soft_wrap=True, force_terminal=False, stderr=stderr)
            outcome = run_to_outcome(
                config, Pass(console, postpones, set(known_notes)), PlaceInSweep(title)
            )
        except Interrupted as interrupted:
            outcome = Outcome(Path(config.values["runs_dir"]), "interrupted", note=str(interrupted))
        # A parent that is gone needs no answer, and one that asks to stop now is answered so.
        with suppress(OSError, Interrupted), delay_interruption():
            parent_connection.send(outcome)


def _stop_with_parent() -> None:
    """Ask this process to stop when the one that started it is gone."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
