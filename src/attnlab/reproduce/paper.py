"""The steps of `attnlab reproduce PAPER`: plan a request, train its runs, judge its claims."""

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
from attnlab.reproduce.recipe import PLACES, Recipe, load_recipes, shipped_dir
from attnlab.run_record.write import make_directory, replace_file

if TYPE_CHECKING:
    from attnlab.run_record.record import Record


@dataclass(frozen=True)
class PaperRequest:
    """A request to reproduce a paper; None takes the value of its recipe or of the machine."""

    paper: str
    scale: str | None = None
    seeds: int | None = None
    jobs: int | None = None
    judge_only: bool = False
    """Whether to judge without training; without a scale, all scales are judged then."""
    output: Path | None = None
    """The directory for results."""
    runs_dir: Path | None = None
    places: Sequence[str] = ()
    """KEY=VALUE arguments for the paths of data."""
    config_dir: Path | None = None
    """The directory of parts of the user's own."""


@dataclass(frozen=True)
class PaperPlan:
    """A request with all its values resolved."""

    recipes: Mapping[str, Recipe]
    """The recipes of the paper, by scale."""
    scales: Sequence[str]
    """The scales that are judged; the first is trained."""
    seeds: int
    output: Path
    jobs: int
    """Number of runs at the same time."""
    runs_dir: Path
    places: Sequence[str]
    experiments: Path
    """The directory of the recipes."""
    config_dir: Path | None

    @property
    def recipe(self) -> Recipe:
        """The recipe that is trained."""
        return self.recipes[self.scales[0]]

    @property
    def readme_path(self) -> Path:
        """The path of the paper's README."""
        return self.output / "README.md"


def plan_paper(experiments: Path, request: PaperRequest) -> PaperPlan:
    """Return the plan of a request. Raises RequestError for bad values; writes nothing."""
    _require_data_places(request)
    recipes_by_scale = load_recipes(experiments, request.paper)
    scales = _select_scales(recipes_by_scale, request)
    recipe = recipes_by_scale[scales[0]]
    return PaperPlan(
        recipes=recipes_by_scale,
        scales=scales,
        output=output_dir(recipe, request.output),
        seeds=_num_seeds(recipe, request),
        jobs=1 if request.judge_only else _num_jobs(recipe, request.jobs),
        runs_dir=request.runs_dir or recipe_runs_dir(recipe, default_runs_dir()),
        places=request.places,
        experiments=experiments,
        config_dir=request.config_dir,
    )


def train_paper(plan: PaperPlan, console: Console) -> None:
    """Train the missing runs, and write the results and the figures.

    Raises what `attnlab.reproduce.recipe_runs.train_recipe` raises; nothing is written then.
    """
    # Lightning takes seconds to import, and judging does not need it.
    from attnlab.reproduce.figures import draw_figures
    from attnlab.reproduce.recipe_runs import train_recipe

    recipe = plan.recipe
    run_results = train_recipe(
        *(recipe, plan.seeds, plan.runs_dir, plan.jobs, console),
        places=plan.places,
        config_dir=plan.config_dir,
    )
    results.write_results(plan.output, run_results)
    draw_figures(recipe, _records_by_arm(run_results, plan.runs_dir), plan.output)


def judge_paper(plan: PaperPlan) -> list[JudgedRecipe]:
    """Return the requested scales judged, and write the paper's README with all scales."""
    results_by_scale = {
        scale: results.read_results(plan.output, scale)
        or results.read_results(recipe.folder, scale)
        for scale, recipe in plan.recipes.items()
    }
    make_directory(plan.output)
    content = readme.render_readme(plan.recipes, results_by_scale, plan.output, plan.experiments)
    replace_file(plan.readme_path, content.encode())
    return [judge_recipe(plan.recipes[scale], results_by_scale[scale]) for scale in plan.scales]


def _require_data_places(request: PaperRequest) -> None:
    """Raise RequestError for arguments other than paths of data: a claim fixes all others."""
    arguments = [request.paper, *request.places]
    if "=" in request.paper:
        raise RequestError(f"{request.paper} needs a PAPER before it")
    for argument in request.places:
        key, separator, _ = argument.partition("=")
        if not separator:
            raise RequestError(f"one PAPER is run at a time, not {' and '.join(arguments)}")
        if key not in PLACES:
            raise RequestError(
                f"{argument}: a recipe's runs are what its claims were committed with; "
                f"only where data lie can be said here ({', '.join(PLACES)})"
            )
    if request.judge_only and request.places:
        raise RequestError(f"--judge reads no data; leave {' '.join(request.places)} out")
    if request.judge_only and request.config_dir is not None:
        raise RequestError("--judge builds nothing; leave --config-dir out")


def _select_scales(recipes_by_scale: Mapping[str, Recipe], request: PaperRequest) -> list[str]:
    """Return the scale to run, or the scales to judge: all, unless the request names one."""
    if request.judge_only and request.scale is None:
        return list(recipes_by_scale)
    scale = request.scale or "check"
    if scale not in recipes_by_scale:
        raise RequestError(
            f"{request.paper} has no recipe at --scale {scale}; "
            f"there is {', '.join(recipes_by_scale)}"
        )
    return [scale]


def recipe_runs_dir(recipe: Recipe, runs_dir: Path) -> Path:
    """Return the directory below that of all runs where the runs of a recipe go."""
    return runs_dir / "reproduce" / f"{recipe.paper}-{recipe.scale}"


def output_dir(recipe: Recipe, output: Path | None = None) -> Path:
    """Return the directory for results: the recipe's own, unless that must not be written to."""
    if output is not None:
        return output
    if recipe.folder.parent == shipped_dir():
        return Path("experiments-results") / recipe.paper
    return recipe.folder


def _num_seeds(recipe: Recipe, request: PaperRequest) -> int:
    """Return the number of seeds to run. Raises RequestError for a number that is not allowed."""
    num_seeds = recipe.seeds if request.seeds is None else request.seeds
    if num_seeds < 1:
        raise RequestError(f"--seeds {num_seeds} must be at least 1")
    if request.judge_only and request.seeds is not None:
        raise RequestError("--judge takes the seeds that were run; leave --seeds out")
    if num_seeds != recipe.seeds and request.output is None:
        raise RequestError(
            f"--seeds {num_seeds}: the claims were committed with {recipe.seeds} seeds; "
            "name another place for these results with -o DIR"
        )
    return num_seeds


def _num_jobs(recipe: Recipe, jobs: int | None) -> int:
    if jobs is None:
        # A run needs the whole GPU.
        jobs = 1 if recipe.needs == "gpu" else _num_cores()
    if jobs < 1:
        raise RequestError(f"--jobs {jobs} must be at least 1")
    return jobs


def _num_cores() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _records_by_arm(run_results: Mapping[str, Any], runs_dir: Path) -> "dict[str, list[Record]]":
    """Return the record of each finished run, by its arm."""
    from attnlab.run_record.record import Record

    return {
        arm: [Record(runs_dir / run["name"]) for run in arm_results["runs"]]
        for arm, arm_results in run_results["arms"].items()
    }
