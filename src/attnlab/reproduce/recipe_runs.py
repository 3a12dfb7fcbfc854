"""Train what a recipe lacks: every arm and seed, checked first, several at once."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnlab.config import Config, compose_each, search_path, share_cores
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
from attnlab.launch.inline import Inline
from attnlab.launch.many import run_many
from attnlab.launch.outcome import Outcome
from attnlab.launch.processes import Processes
from attnlab.launch.sweep_progress import SweepProgress
from attnlab.printable import say_message
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


def train_recipe(
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
    planned_runs = compose_runs(recipe, seeds, runs_dir, jobs, places, config_dir)
    for note in dict.fromkeys(note for run in planned_runs for note in run.config.notes):
        say_message(note)
    outcomes: dict[tuple[str, int], Outcome] = {}
    judged_arms: set[str] = set()
    configs = [run.config for run in planned_runs]
    sweep_progress = SweepProgress([f"{run.arm} seed {run.seed}" for run in planned_runs])
    launcher = Inline() if jobs == 1 else Processes(jobs=jobs)
    with closing(run_many(configs, console, launcher, sweep_progress)) as ended_runs:
        for index, outcome in ended_runs:
            arm, seed = planned_runs[index].arm, planned_runs[index].seed
            outcomes[arm, seed] = outcome
            total = len(planned_runs)
            progress = f"[{len(outcomes):>{len(str(total))}}/{total}]"
            console.print(f"{progress} {arm} seed {seed}: {_describe_outcome(outcome)}")
            if outcome.status == "blocked":
                raise RequestError(f"{arm} seed {seed}: {outcome.note}")
            if outcome.ok and arm not in judged_arms:
                judged_arms.add(arm)
                # A measure that is misspelt is told now, not after all the runs.
                judge(recipe, _collect_results(recipe, planned_runs, outcomes, config_dir))
    undone_runs = [
        outcome for outcome in outcomes.values() if outcome.status in ("held", "interrupted")
    ]
    if undone_runs:
        raise RequestError(f"{len(undone_runs)} runs could not be done; {undone_runs[0].note}")
    return _collect_results(recipe, planned_runs, outcomes, config_dir)


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
    with search_path(config_dir) as user_targets:
        composition = compose_each(
            {arm: [*overrides, *places] for arm, overrides in overrides_by_arm.items()},
            user_targets,
        )
    shared_configs = share_cores([*composition.configs.values()], jobs, torch.get_num_threads())
    configs = dict(zip(composition.configs, shared_configs, strict=True))
    arms_by_fault = composition.faults
    for first_arm, second_arm in combinations(configs, 2):
        if configs[first_arm].values == configs[second_arm].values:
            equal_arms = arms_by_fault.setdefault("the same run as another arm", [])
            equal_arms.extend([first_arm, second_arm])
    if arms_by_fault:
        location = f"{recipe.paper}/{recipe.scale}.yaml"
        raise ConfigError(
            [
                f"{location}: {', '.join(dict.fromkeys(arms))}: {fault}"
                for fault, arms in arms_by_fault.items()
            ]
        )
    # Not an override: a path may hold what their grammar reads otherwise.
    our_values = {"runs_dir": str(runs_dir)}
    return [
        PlannedRun(arm, seed, replace(config, values={**config.values, **our_values, "seed": seed}))
        for seed in range(seeds)
        for arm, config in configs.items()
    ]


def _collect_results(
    recipe: Recipe,
    planned_runs: Sequence[PlannedRun],
    outcomes: Mapping[tuple[str, int], Outcome],
    config_dir: Path | None,
) -> dict[str, Any]:
    """Return the results of the runs that ended, in the order of the plan."""
    planned_keys = [(run.arm, run.seed) for run in planned_runs]
    ordered_outcomes = {key: outcomes[key] for key in planned_keys if key in outcomes}
    return results.collect_results(
        recipe,
        finished_dirs={
            key: outcome.directory for key, outcome in ordered_outcomes.items() if outcome.ok
        },
        failed_dirs={
            key: outcome.directory
            for key, outcome in ordered_outcomes.items()
            if outcome.status in FAILED
        },
        config_dir=config_dir,
    )


def _describe_outcome(outcome: Outcome) -> str:
    """Return what became of a run in a few words, with its main metric."""
    result = outcome.result
    if result is None:
        return f"{outcome.status} {outcome.note}".strip()
    remark = outcome.note if outcome.status == "skipped" else f"{result.seconds:.0f} s"
    return f"{result.headline} {result.metrics[result.headline]:.3f} ({remark})"
