"""Train what a recipe lacks: every arm and seed, checked first, several at once."""

import os
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnlab.callbacks.timekeeper import Interrupted
from attnlab.config import Config, compose, search_path
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
from attnlab.reproduce import results
from attnlab.reproduce.judge import judge
from attnlab.reproduce.recipe import Recipe
from attnlab.sweep.run import Outcome, run

FAILED = ("failed", "refused")
"""How a run ended that fails the claims of its arm."""


class Cell(NamedTuple):
    """One run of a recipe."""

    arm: str
    seed: int
    config: Config


def reproduce(
    recipe: Recipe,
    seeds: int,
    runs_dir: Path,
    jobs: int,
    console: Console,
    places: Sequence[str] = (),
) -> dict[str, Any]:
    """Do what is missing of a recipe's runs, and give the results.

    `places` are overrides that say where data lie. Raises ConfigError with the faults of all arms
    before anything is written, and with what an arm's first run has not measured; RequestError
    where a run cannot be begun; KeyboardInterrupt once what was running is saved.
    """
    if recipe.needs == "gpu" and not torch.cuda.is_available():
        raise RequestError(
            f"{recipe.paper} at --scale {recipe.scale} needs a GPU, and torch sees none here; run "
            "it where there is one, or take another scale"
        )
    planned = cells(recipe, seeds, runs_dir, jobs, places)
    outcomes: dict[tuple[str, int], Outcome] = {}
    seen: set[str] = set()
    train = _at_once if jobs > 1 else _in_turn
    with closing(train(planned, jobs, console)) as trained:
        for cell, outcome in trained:
            outcomes[cell.arm, cell.seed] = outcome
            place = f"[{len(outcomes):>{len(str(len(planned)))}}/{len(planned)}]"
            console.print(f"{place} {cell.arm} seed {cell.seed}: {_said(outcome)}")
            if outcome.status == "hindered":
                raise RequestError(f"{cell.arm} seed {cell.seed}: {outcome.note}")
            if outcome.ok and cell.arm not in seen:
                seen.add(cell.arm)
                # A measure that is misspelt is told now, not after all the runs.
                judge(recipe, _collect(recipe, planned, outcomes))
    if any(outcome.status == "interrupted" for outcome in outcomes.values()):
        raise KeyboardInterrupt
    if held := [outcome for outcome in outcomes.values() if outcome.status == "held"]:
        raise RequestError(f"{len(held)} runs could not be done; {held[0].note}")
    return _collect(recipe, planned, outcomes)


def cells(
    recipe: Recipe, seeds: int, runs_dir: Path, jobs: int = 1, places: Sequence[str] = ()
) -> list[Cell]:
    """Compose and check every run, seed by seed. Raises ConfigError with the faults of all arms."""
    configs: dict[str, Config] = {}
    faults: dict[str, list[str]] = {}
    share = max(1, torch.get_num_threads() // jobs)
    with search_path() as own:
        for arm in recipe.arms:
            words = recipe.overrides(arm)
            # As in a sweep: several at once share the cores unless the recipe says how.
            told = jobs == 1 or any(word.startswith("trainer.threads=") for word in words)
            threads = [] if told else [f"trainer.threads={share}"]
            try:
                config = compose([*words, *threads, *places], own)
            except ConfigError as error:
                for fault in error.faults:
                    faults.setdefault(fault, []).append(arm)
                continue
            if twins := [twin for twin in configs if configs[twin].values == config.values]:
                faults.setdefault("the same run as another arm", []).extend([*twins, arm])
            configs[arm] = config
    if faults:
        where = f"{recipe.paper}/{recipe.scale}.yaml"
        named = {fault: ", ".join(dict.fromkeys(arms)) for fault, arms in faults.items()}
        raise ConfigError([f"{where}: {arms}: {fault}" for fault, arms in named.items()])
    # Not an override: a path may hold what their grammar reads otherwise.
    ours = {"runs_dir": str(runs_dir)}
    return [
        Cell(arm, seed, replace(config, values={**config.values, **ours, "seed": seed}))
        for seed in range(seeds)
        for arm, config in configs.items()
    ]


def _collect(
    recipe: Recipe, planned: Sequence[Cell], outcomes: Mapping[tuple[str, int], Outcome]
) -> dict[str, Any]:
    # In the order of the plan, whichever ended first.
    ended = [at for cell in planned if (at := (cell.arm, cell.seed)) in outcomes]
    return results.collect(
        recipe,
        finished={at: outcomes[at].directory for at in ended if outcomes[at].ok},
        failed={at: o.directory for at in ended if (o := outcomes[at]).status in FAILED},
    )


def _in_turn(
    planned: Sequence[Cell], jobs: int, console: Console
) -> Generator[tuple[Cell, Outcome], None, None]:
    for cell in planned:
        outcome = _train(cell.config, console)
        yield cell, outcome
        if outcome.status == "interrupted":
            return


def _at_once(
    planned: Sequence[Cell], jobs: int, console: Console
) -> Generator[tuple[Cell, Outcome], None, None]:
    """Train in processes of their own; an interruption reaches each of them once, and is awaited.

    A process is deaf to it while it starts (an ignored signal is inherited), and it leaves the
    terminal's group, so that Ctrl-C does not come twice: the second would end it unsaved.
    """
    context = get_context("spawn")
    stop = context.Event()
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stop,))
        futures: dict[Future[Outcome], Cell] = {
            pool.submit(_train_apart, cell.config): cell for cell in planned
        }
    finally:
        signal.signal(signal.SIGINT, heard)
    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        stop.set()
        for child in active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, terminated)


def _begin(stop: Event) -> None:
    """Make a process of the pool ready, and let it end with the one that started it."""
    global _stop
    _stop = stop
    os.setpgrp()

    def end_with_parent() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


_stop: Event | None = None
"""Set in a process of the pool when nothing more is to begin."""


def _train_apart(config: Config) -> Outcome:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if _stop is not None and _stop.is_set():
            return Outcome(Path(), "interrupted")
        # Bars of several processes would write over each other.
        return _train(config, Console(quiet=True))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _train(config: Config, console: Console) -> Outcome:
    directory = Path(config.values["runs_dir"])
    try:
        return run(config, console)
    except (Interrupted, KeyboardInterrupt):
        return Outcome(directory, "interrupted")
    except RequestError as error:
        return Outcome(directory, "hindered", note=str(error))


def _said(outcome: Outcome) -> str:
    if not outcome.ok:
        return f"{outcome.status} {outcome.note}".strip()
    headline = outcome.summary["headline"]
    seconds = f"{outcome.summary['seconds']:.0f} s"
    how = outcome.note if outcome.status == "skipped" else seconds
    return f"{headline} {outcome.summary['metrics'][headline]:.3f} ({how})"
