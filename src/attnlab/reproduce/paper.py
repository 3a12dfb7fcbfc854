"""A paper asked through: which recipe is meant, its runs, and what their results say."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.console import Console
from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.reproduce import readme, results
from attnlab.reproduce.judged import JudgedRecipe, judge_recipe
from attnlab.reproduce.recipe import PLACES, Recipe, recipes, shipped_dir
from attnlab.run_record.write import make_directory, replace

if TYPE_CHECKING:
    from attnlab.run_record.record import Record


@dataclass(frozen=True)
class PaperRequest:
    """What is asked of a paper; None takes what its recipe, or the machine, says."""

    paper: str
    scale: str | None = None
    seeds: int | None = None
    jobs: int | None = None
    judge_only: bool = False
    """Whether nothing is trained; without a scale, all scales are judged then."""
    output: Path | None = None
    """Where results go."""
    runs_dir: Path | None = None
    places: Sequence[str] = ()
    """KEY=VALUE of where data lie."""


@dataclass(frozen=True)
class Plan:
    """What a request comes to."""

    recipes: Mapping[str, Recipe]
    """Those of the paper, by their scales."""
    scales: Sequence[str]
    """Those that are judged; the first is trained."""
    seeds: int
    output: Path
    jobs: int
    """Runs at once."""
    runs_dir: Path
    places: Sequence[str]

    @property
    def recipe(self) -> Recipe:
        """The recipe that is trained."""
        return self.recipes[self.scales[0]]

    @property
    def readme(self) -> Path:
        """Where the README of the paper is written."""
        return self.output / "README.md"


def plan_paper(experiments: Path, request: PaperRequest) -> Plan:
    """Return what a request comes to. Raises RequestError for what cannot be; writes nothing."""
    _require_places(request)
    of_paper = recipes(experiments, request.paper)
    scales = _scales(of_paper, request)
    recipe = of_paper[scales[0]]
    root = default_runs_dir()
    return Plan(
        recipes=of_paper,
        scales=scales,
        output=_output(recipe, request.output),
        seeds=_seeds(recipe, request),
        jobs=1 if request.judge_only else _jobs(recipe, request.jobs),
        runs_dir=request.runs_dir or root / "reproduce" / f"{recipe.paper}-{recipe.scale}",
        places=request.places,
    )


def train_paper(plan: Plan, console: Console) -> None:
    """Train what is missing, and write the results and the figures.

    Raises what `attnlab.reproduce.run.reproduce` does; nothing is written then.
    """
    # Lightning takes seconds to import, which judging alone does not need.
    from attnlab.reproduce.figures import draw
    from attnlab.reproduce.run import reproduce

    recipe = plan.recipe
    of_runs = reproduce(recipe, plan.seeds, plan.runs_dir, plan.jobs, console, plan.places)
    results.write(plan.output, of_runs)
    draw(recipe, _records(of_runs, plan.runs_dir), plan.output)


def judge_paper(plan: Plan) -> list[JudgedRecipe]:
    """Judge the scales that were asked for, and write the paper's README with all of them."""
    by_scale = {
        scale: results.read(plan.output, scale) or results.read(recipe.folder, scale)
        for scale, recipe in plan.recipes.items()
    }
    make_directory(plan.output)
    replace(plan.readme, readme.text(plan.recipes, by_scale, plan.output).encode())
    return [judge_recipe(plan.recipes[scale], by_scale[scale]) for scale in plan.scales]


def _require_places(request: PaperRequest) -> None:
    """Let the user say where data lie, and nothing of what a claim was committed with."""
    words = [request.paper, *request.places]
    if "=" in request.paper:
        raise RequestError(f"{request.paper} needs a PAPER before it")
    for word in request.places:
        key, equals, _ = word.partition("=")
        if not equals:
            raise RequestError(f"one PAPER is run at a time, not {' and '.join(words)}")
        if key not in PLACES:
            raise RequestError(
                f"{word}: a recipe's runs are what its claims were committed with; "
                f"only where data lie can be said here ({', '.join(PLACES)})"
            )
    if request.judge_only and request.places:
        raise RequestError(f"--judge reads no data; leave {' '.join(request.places)} out")


def _scales(of_paper: Mapping[str, Recipe], request: PaperRequest) -> list[str]:
    """Choose the recipe to run, or those to judge: all of them unless one is named."""
    if request.judge_only and request.scale is None:
        return list(of_paper)
    scale = request.scale or "check"
    if scale not in of_paper:
        raise RequestError(
            f"{request.paper} has no recipe at --scale {scale}; there is {', '.join(of_paper)}"
        )
    return [scale]


def _output(recipe: Recipe, output: Path | None) -> Path:
    if output is not None:
        return output
    if recipe.folder.parent == shipped_dir():
        return Path("experiments-results") / recipe.paper
    return recipe.folder


def _seeds(recipe: Recipe, request: PaperRequest) -> int:
    seeds = recipe.seeds if request.seeds is None else request.seeds
    if seeds < 1:
        raise RequestError(f"--seeds {seeds} must be at least 1")
    if request.judge_only and request.seeds is not None:
        raise RequestError("--judge takes the seeds that were run; leave --seeds out")
    if seeds != recipe.seeds and request.output is None:
        raise RequestError(
            f"--seeds {seeds}: the claims were committed with {recipe.seeds} seeds; "
            "name another place for these results with -o DIR"
        )
    return seeds


def _jobs(recipe: Recipe, jobs: int | None) -> int:
    if jobs is None:
        # Each run has the GPU alone.
        jobs = 1 if recipe.needs == "gpu" else _cores()
    if jobs < 1:
        raise RequestError(f"--jobs {jobs} must be at least 1")
    return jobs


def _cores() -> int:
    affine = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1


def _records(of_runs: Mapping[str, Any], runs_dir: Path) -> "dict[str, list[Record]]":
    """Return the record of each finished run, by its arm."""
    from attnlab.run_record.record import Record

    return {
        arm: [Record(runs_dir / run["name"]) for run in of_arm["runs"]]
        for arm, of_arm in of_runs["arms"].items()
    }
