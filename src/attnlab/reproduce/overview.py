"""The claims of all papers, judged without training or writing, for a reader.

from attnlab.reproduce.overview import judged_papers

for paper in judged_papers(experiments_dir(), Path("runs")):
    print(paper.name, paper.fault, [claim.verdict for r in paper.recipes for claim in r.claims])
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attnlab.errors import RecordError, RequestError
from attnlab.reproduce import results
from attnlab.reproduce.judge import Results
from attnlab.reproduce.judged import JudgedRecipe, judge_recipe
from attnlab.reproduce.paper import output_dir, recipe_runs_dir
from attnlab.reproduce.recipe import PLACES, Recipe, load_recipes, paper_names
from attnlab.run_record.record import Record, find_runs
from attnlab.run_record.result import FailedAttempt, RunResult

THREADS = "trainer.threads"
"""The key of the override that `attnlab reproduce` adds for several runs at once."""


@dataclass(frozen=True)
class SourcedRecipe:
    """A judged recipe, and where its numbers come from."""

    judged: JudgedRecipe
    source: str
    """The file of results or the directory of runs; empty where nothing was run."""
    is_partial: bool = False
    """Whether the numbers are of runs whose results `attnlab reproduce` has not written yet."""


@dataclass(frozen=True)
class JudgedPaper:
    """The recipes of a paper; none, and the fault, where they cannot be read."""

    name: str
    recipes: Sequence[SourcedRecipe]
    fault: str = ""


def judged_papers(experiments: Path, runs_dir: Path) -> list[JudgedPaper]:
    """Return each paper judged by its results, or by its runs below `runs_dir`.

    Results are found where `attnlab reproduce` writes them, then beside the recipe. A paper that
    cannot be read has its fault, and leaves the others.
    """
    papers = []
    for name in paper_names(experiments):
        try:
            recipes = load_recipes(experiments, name).values()
            papers.append(JudgedPaper(name, [_judge(recipe, runs_dir) for recipe in recipes]))
        except RequestError as error:
            papers.append(JudgedPaper(name, [], str(error)))
    return papers


def _judge(recipe: Recipe, runs_dir: Path) -> SourcedRecipe:
    for folder in dict.fromkeys((output_dir(recipe), recipe.folder)):
        recipe_results = results.read_results(folder, recipe.scale)
        if recipe_results is not None:
            path = results.results_path(folder, recipe.scale)
            return SourcedRecipe(judge_recipe(recipe, recipe_results), str(path))
    recipe_dir = recipe_runs_dir(recipe, runs_dir)
    recipe_results = _results_of_runs(recipe, recipe_dir)
    if recipe_results is None:
        return SourcedRecipe(judge_recipe(recipe, None), "")
    return SourcedRecipe(judge_recipe(recipe, recipe_results), str(recipe_dir), is_partial=True)


def _results_of_runs(recipe: Recipe, recipe_dir: Path) -> Results | None:
    """Return the results of a recipe's finished runs; None where there is none."""
    if not recipe_dir.is_dir():
        return None
    finished_dirs, failed_dirs = {}, {}
    for record in find_runs(recipe_dir):
        # A run that cannot be read is none that ended; `attnlab runs` says what is wrong with it.
        with suppress(RecordError):
            summary = _end(record)
            if summary is None:
                continue
            dirs = failed_dirs if isinstance(summary, FailedAttempt) else finished_dirs
            dirs |= dict.fromkeys(_planned_keys(recipe, summary), record.path)
    if not finished_dirs and not failed_dirs:
        return None
    by_seed = sorted(finished_dirs, key=lambda key: key[1])
    return results.collect_results(
        recipe, {key: finished_dirs[key] for key in by_seed}, failed_dirs
    )


def _end(record: Record) -> RunResult | FailedAttempt | None:
    """Return how a run ended; None for one that goes on, or was interrupted."""
    if record.result is not None:
        return record.result
    attempts = record.attempts
    summary = attempts[-1].summary if attempts and record.state == "failed" else None
    return summary if isinstance(summary, FailedAttempt) else None


def _planned_keys(recipe: Recipe, summary: RunResult | FailedAttempt) -> list[tuple[str, int]]:
    """Return the arm and the seed of a run, by the overrides that it was trained with."""
    ours = (THREADS, *PLACES)

    def without_ours(overrides: Iterable[str]) -> list[str]:
        return [text for text in overrides if text.partition("=")[0] not in ours]

    overrides = without_ours(summary.overrides)
    return [
        (arm, summary.seed)
        for arm in recipe.arms
        if overrides == without_ours(recipe.overrides(arm))
    ]
