"""Train what a recipe lacks: every arm and seed, checked first, several at once."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnlab.config import Config, compose, search_path
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
from attnlab.launch.many import many
from attnlab.launch.run import Outcome
from attnlab.reproduce import results
from attnlab.reproduce.judge import judge
from attnlab.reproduce.recipe import Recipe

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
    where a run cannot be begun; Interrupted once what was running is saved.
    """
    if recipe.needs == "gpu" and not torch.cuda.is_available():
        raise RequestError(
            f"{recipe.paper} at --scale {recipe.scale} needs a GPU, and torch sees none here; run "
            "it where there is one, or take another scale"
        )
    planned = cells(recipe, seeds, runs_dir, jobs, places)
    outcomes: dict[tuple[str, int], Outcome] = {}
    seen: set[str] = set()
    with closing(many([cell.config for cell in planned], console, jobs)) as trained:
        for number, outcome in trained:
            cell = planned[number]
            outcomes[cell.arm, cell.seed] = outcome
            place = f"[{len(outcomes):>{len(str(len(planned)))}}/{len(planned)}]"
            console.print(f"{place} {cell.arm} seed {cell.seed}: {_said(outcome)}")
            if outcome.status == "blocked":
                raise RequestError(f"{cell.arm} seed {cell.seed}: {outcome.note}")
            if outcome.ok and cell.arm not in seen:
                seen.add(cell.arm)
                # A measure that is misspelt is told now, not after all the runs.
                judge(recipe, _collect(recipe, planned, outcomes))
    if left := [o for o in outcomes.values() if o.status in ("held", "interrupted")]:
        raise RequestError(f"{len(left)} runs could not be done; {left[0].note}")
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


def _said(outcome: Outcome) -> str:
    result = outcome.result
    if result is None:
        return f"{outcome.status} {outcome.note}".strip()
    seconds = f"{result.seconds:.0f} s"
    how = outcome.note if outcome.status == "skipped" else seconds
    return f"{result.headline} {result.metrics[result.headline]:.3f} ({how})"
