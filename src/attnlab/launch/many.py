"""Many runs: one after the other or several at once, and none of them ends the others."""

import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from attnlab.config import Config
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.interruption import STOPPING, Interrupted, patient, stoppable
from attnlab.launch.run import Outcome, run
from attnlab.printable import unheard
from attnlab.run_record.record import DEATHS

Outcomes = Generator[tuple[int, Outcome], None, None]
POSTPONED = ("held", "dead")
"""How runs stand that are asked again once all others are done."""


def many(configs: Sequence[Config], console: Console, jobs: int = 1) -> Outcomes:
    """Do what is missing of many runs; yields the place of each and its outcome, as they end.

    A run that fails in any way does not stop the others. What another process holds, and what has
    died before, comes last. With several `jobs`, each run has a process of its own, and one that
    dies is tried again. Raises Interrupted once what was running is saved.
    """
    train = _in_turn if jobs == 1 else partial(_at_once, jobs=jobs)
    postponed: list[int] = []
    notes: set[str] = set()
    for is_first in (True, False):
        places = list(range(len(configs))) if is_first else postponed
        for place, outcome in train(configs, places, Pass(console, is_first, notes)):
            notes.update(outcome.notes)
            if is_first and outcome.status in POSTPONED:
                postponed.append(place)
            else:
                yield place, outcome


class Pass(NamedTuple):
    """One of the two passes over the runs: how each of them is done."""

    console: Console
    postpones: bool
    """Whether a run that is held or has died is left for the next pass."""
    known_notes: set[str]
    """What the datasets of the runs so far have said of themselves."""


def _in_turn(configs: Sequence[Config], places: Sequence[int], this_pass: Pass) -> Outcomes:
    for place in places:
        yield place, _outcome(configs[place], this_pass)


def _at_once(
    configs: Sequence[Config], places: Sequence[int], this_pass: Pass, *, jobs: int
) -> Outcomes:
    queue, deaths = deque(places), Counter[int]()
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    interrupted = False
    try:
        while running or (queue and not interrupted):
            try:
                while queue and len(running) < jobs and not interrupted:
                    with patient():
                        place = queue.popleft()
                        ours, process = _start(configs[place], this_pass)
                        running[ours] = place, process
                ended = wait(list(running))
            except Interrupted:
                interrupted = True
                _terminate(running)
                continue
            for ours in ended:
                assert isinstance(ours, Connection)
                place, process = running.pop(ours)
                outcome = _received(ours, process)
                if outcome is not None:
                    # What was asked to stop has nothing to say; another one may have been ended.
                    if not (interrupted and outcome.status == "interrupted"):
                        yield place, outcome
                elif interrupted:
                    # It was stopped before it could listen.
                    continue
                elif this_pass.postpones:
                    yield place, Outcome(Path(), "dead")
                else:
                    deaths[place] += 1
                    if deaths[place] < DEATHS:
                        queue.append(place)
                    else:
                        yield place, _given_up(configs[place], process)
    finally:
        # Somebody may have stopped asking while processes run.
        _terminate(running)
        for _, process in running.values():
            process.join()
    if interrupted:
        raise Interrupted


def _start(config: Config, this_pass: Pass) -> tuple[Connection, BaseProcess]:
    # Forked from a process that has imported everything and computed nothing; elsewhere than on
    # Linux, the system's libraries do not bear a fork.
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["attnlab.launch.many"])
    ours, theirs = context.Pipe(duplex=False)
    # A console cannot be handed over.
    options = (this_pass.postpones, frozenset(this_pass.known_notes), this_pass.console.stderr)
    process = context.Process(target=_work, args=(config, *options, theirs))
    # A terminal's Ctrl-C reaches the whole group. What is started here inherits that it is not
    # heard yet, and hears it once it can save.
    # The tracker comes first, since its start unblocks signals.
    resource_tracker.ensure_running()
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    theirs.close()
    return ours, process


def _received(ours: Connection, process: BaseProcess) -> Outcome | None:
    """Take what a process says of its run; None where it died."""
    try:
        outcome = ours.recv()
    except EOFError:
        outcome = None
    ours.close()
    process.join()
    return outcome


def _terminate(running: dict[Connection, tuple[int, BaseProcess]]) -> None:
    for _, process in running.values():
        process.terminate()


def _given_up(config: Config, process: BaseProcess) -> Outcome:
    code = process.exitcode or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return Outcome(
        Path(config.values["runs_dir"]),
        "failed",
        note=f"its process died {how}, {DEATHS} times; less memory (batch_size) or fewer at once "
        "(-j) may help",
    )


def _work(
    config: Config,
    postpones: bool,
    known_notes: frozenset[str],
    stderr: bool,
    theirs: Connection,
) -> None:
    """Do a run in a process of its own, which hears of Ctrl-C from its parent alone."""
    with unheard(), stoppable():
        try:
            # The terminal would send a second Ctrl-C beside the parent's request.
            os.setpgrp()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            threading.Thread(target=_stop_with_parent, daemon=True).start()
            # Bars of several processes would write over each other.
            console = Console(soft_wrap=True, force_terminal=False, stderr=stderr)
            outcome = _outcome(config, Pass(console, postpones, set(known_notes)))
        except Interrupted as interrupted:
            outcome = Outcome(Path(config.values["runs_dir"]), "interrupted", note=str(interrupted))
        # A parent that is gone needs no answer, and one that asks to stop now is answered so.
        with suppress(OSError, Interrupted), patient():
            theirs.send(outcome)


def _stop_with_parent() -> None:
    """Ask this process to stop when the one that started it is gone."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _outcome(config: Config, this_pass: Pass) -> Outcome:
    """Do a run; whatever fails before it has begun is an outcome too."""
    runs_dir = Path(config.values["runs_dir"])
    try:
        return run(config, this_pass.console, this_pass.postpones, this_pass.known_notes)
    except RequestError as error:
        return Outcome(runs_dir, "blocked", note=str(error))
    # Nothing is known of what a user's own parts may raise, or end.
    except (Exception, SystemExit) as error:
        line = f"{type(error).__name__}: {error}".split("\n")[0]
        note = f"{line}; `attnlab train` on this run alone with --traceback says where"
        return Outcome(runs_dir, "failed", note=note)
