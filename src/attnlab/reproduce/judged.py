"""The verdicts on the claims of a recipe, and the JSON report of each.

JSON is a list of objects, one for each claim: paper, claim (NAME/ARM), scale, verdict ("holds",
"fails" or "not_run"), theirs (text), ours (the mean; null where nothing was run), n (seeds), then
low and high (the 95 % interval; null where there is none), needed (seeds), tolerance (text), note
(text), then of the runs that were judged: seeds [number], commits and hardware [text], mostly one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnlab.analysis.arms import suggest_key
from attnlab.errors import RequestError
from attnlab.reproduce import results
from attnlab.reproduce.judge import Results, Verdict, judge
from attnlab.reproduce.recipe import Recipe, load_recipes, paper_names


@dataclass(frozen=True)
class ClaimReport:
    """The verdict on a claim of a paper, with the numbers behind it."""

    paper: str
    claim: str
    """NAME/ARM."""
    scale: str
    verdict: str
    """One of holds, fails and not_run."""
    theirs: str
    ours: float | None
    """The mean over the seeds."""
    n: int
    """Number of seeds that were run."""
    low: float | None
    """Lower end of the 95 % interval; `high` is the upper end."""
    high: float | None
    needed: int
    """Number of seeds that are needed."""
    tolerance: str
    note: str
    seeds: Sequence[int]
    commits: Sequence[str]
    hardware: Sequence[str]


@dataclass(frozen=True)
class JudgedRecipe:
    """A recipe, its results, and the verdicts on its claims."""

    recipe: Recipe
    results: Results | None
    verdicts: Sequence[Verdict]

    @property
    def failed(self) -> bool:
        """Whether a claim fails or a run failed."""
        arms = self.results["arms"].values() if self.results else ()
        return self.count("fails") > 0 or any(arm["failed"] for arm in arms)

    def count(self, verdict: str) -> int:
        """Count the claims with a verdict."""
        return sum(claim_verdict.verdict == verdict for claim_verdict in self.verdicts)

    @property
    def claims(self) -> list[ClaimReport]:
        """The report of each claim."""
        return [_claim_report(self.recipe, verdict) for verdict in self.verdicts]


def judge_recipe(recipe: Recipe, recipe_results: Results | None) -> JudgedRecipe:
    """Return a recipe with its results and the verdicts on all claims."""
    return JudgedRecipe(recipe, recipe_results, judge(recipe, recipe_results))


def judge_every_paper(experiments: Path, scale: str | None = None) -> list[JudgedRecipe]:
    """Return every recipe, or those of a scale, judged by the results in its folder.

    Raises RequestError for a scale that no paper has.
    """
    all_recipes = [
        recipe
        for paper in paper_names(experiments)
        for recipe in load_recipes(experiments, paper).values()
    ]
    scales = dict.fromkeys(recipe.scale for recipe in all_recipes)
    if scale not in (None, *scales):
        raise RequestError(
            f"no paper has a recipe at --scale {scale}; {suggest_key(str(scale), scales)}"
        )
    return [
        judge_recipe(recipe, results.read_results(recipe.folder, recipe.scale))
        for recipe in all_recipes
        if scale in (None, recipe.scale)
    ]


def _claim_report(recipe: Recipe, verdict: Verdict) -> ClaimReport:
    """Return a verdict as the report of its claim."""
    n, mean, low, high = verdict.ours
    return ClaimReport(
        paper=recipe.paper,
        claim=verdict.claim.name,
        scale=recipe.scale,
        verdict=verdict.verdict,
        theirs=verdict.claim.theirs,
        ours=mean,
        n=n,
        low=low,
        high=high,
        needed=verdict.needed,
        tolerance=str(verdict.claim.bound),
        note=verdict.note,
        seeds=verdict.seeds,
        commits=verdict.commits,
        hardware=verdict.hardware,
    )
