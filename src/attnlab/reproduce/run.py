"""Train what a recipe lacks: every arm and seed, checked first, several at once."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnlab.config import Config, compose_each, search_path, thread_overrides
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
from attnlab.launch.many import launcher_for, many
from attnlab.launch.run import Outcome
from attnlab.launch.sweep_progress import SweepProgress
from attnlab.printable import say
from attnlab.reproduce import results
from attnlab.reproduce.judge import judge
from attnlab.reproduce.recipe import Recipe

FAILED = ("failed", "refused")
"""How a run ended that fails the claims of its arm."""


class PlannedRun(NamedTuple):
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
    config_dir: Path | None = None,
) -> dict[str, Any]:
    """Do what is missing of a recipe's runs, and give the results.

    `places` are overrides that say where data lie; `config_dir` has parts of the user's own. Raises
    ConfigError with the faults of all arms before anything is written, and with what an arm's first
    run has not measured; RequestError where a run cannot be begun; Interrupted once what was
    running is saved.
    """
    if recipe.needs == "gpu" and not torch.cuda.is_available():
        raise RequestError(
            f"{recipe.paper} at --scale {recipe.scale} needs a GPU, and torch sees none here; run "
            "it where there is one, or take another scale"
        )
    planned = compose_runs(recipe, seeds, runs_dir, jobs, places, config_dir)
    outcomes: dict[tuple[str, int], Outcome] = {}
    judged_arms: set[str] = set()
    for note in dict.fromkeys(note for cell in planned for note in cell.config.notes):
        say(note, file=sys.stderr)
    configs = [cell.config for cell in planned]
    sweep_progress = SweepProgress([f"{cell.arm} seed {cell.seed}" for cell in planned])
    with closing(many(configs, console, launcher_for(jobs), sweep_progress)) as trained:
        for number, outcome in trained:
            cell = planned[number]
            outcomes[cell.arm, cell.seed] = outcome
            progress = f"[{len(outcomes):>{len(str(len(planned)))}}/{len(planned)}]"
            console.print(f"{progress} {cell.arm} seed {cell.seed}: {_describe_outcome(outcome)}")
            if outcome.status == "blocked":
                raise RequestError(f"{cell.arm} seed {cell.seed}: {outcome.note}")
            if outcome.ok and cell.arm not in judged_arms:
                judged_arms.add(cell.arm)
                # A measure that is misspelt is told now, not after all the runs.
                judge(recipe, _collect(recipe, planned, outcomes, config_dir))
    if undone := [o for o in outcomes.values() if o.status in ("held", "interrupted")]:
        raise RequestError(f"{len(undone)} runs could not be done; {undone[0].note}")
    return _collect(recipe, planned, outcomes, config_dir)


def compose_runs(
    recipe: Recipe,
    seeds: int,
    runs_dir: Path,
    jobs: int = 1,
    places: Sequence[str] = (),
    config_dir: Path | None = None,
) -> list[PlannedRun]:
    """Compose and check every run, seed by seed. Raises ConfigError with the faults of all arms."""
    overrides_by_arm = {arm: recipe.overrides(arm) for arm in recipe.arms}
    threads = torch.get_num_threads()
    with search_path(config_dir) as user_targets:
        composed = compose_each(
            {
                arm: [*overrides, *thread_overrides(overrides, jobs, threads), *places]
                for arm, overrides in overrides_by_arm.items()
            },
            user_targets,
        )
    configs, faults = composed.configs, composed.faults
    for first, second in combinations(configs, 2):
        if configs[first].values == configs[second].values:
            faults.setdefault("the same run as another arm", []).extend([first, second])
    if faults:
        where = f"{recipe.paper}/{recipe.scale}.yaml"
        arms_by_fault = {fault: ", ".join(dict.fromkeys(arms)) for fault, arms in faults.items()}
        raise ConfigError([f"{where}: {arms}: {fault}" for fault, arms in arms_by_fault.items()])
    # Not an override: a path may hold what their grammar reads otherwise.
    our_values = {"runs_dir": str(runs_dir)}
    return [
        PlannedRun(arm, seed, replace(config, values={**config.values, **our_values, "seed": seed}))
        for seed in range(seeds)
        for arm, config in configs.items()
    ]


def _collect(
    recipe: Recipe,
    planned: Sequence[PlannedRun],
    outcomes: Mapping[tuple[str, int], Outcome],
    config_dir: Path | None,
) -> dict[str, Any]:
    # In the order of the plan, whichever ended first.
    ended = [at for cell in planned if (at := (cell.arm, cell.seed)) in outcomes]
    return results.collect(
        recipe,
        finished={at: outcomes[at].directory for at in ended if outcomes[at].ok},
        failed={at: o.directory for at in ended if (o := outcomes[at]).status in FAILED},
        config_dir=config_dir,
    )


def _describe_outcome(outcome: Outcome) -> str:
    result = outcome.result
    if result is None:
        return f"{outcome.status} {outcome.note}".strip()
    seconds = f"{result.seconds:.0f} s"
    how = outcome.note if outcome.status == "skipped" else seconds
    return f"{result.headline} {result.metrics[result.headline]:.3f} ({how})"
