"""Claims against results: pure functions, so that judging again needs no training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attnlab.errors import RequestError
from attnlab.reproduce.claims import Claim, Steps, Term, Value
from attnlab.reproduce.recipe import Recipe
from attnlab.runs.arms import nearest
from attnlab.runs.statistics import Interval, interval, paired

Results = Mapping[str, Any]
"""What results/SCALE.json holds; see results.py."""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: `ours` is the mean over n seeds of those needed, and its interval."""

    claim: Claim
    verdict: Literal["holds", "fails", "not_run"]
    ours: Interval
    needed: int
    note: str
    """What a reader must know beside the numbers."""


def judge(recipe: Recipe, results: Results | None) -> list[Verdict]:
    """Judge every claim of a recipe by its results; None where nothing has been run.

    A claim fails where a run of its arms failed. It is not run where seeds are lacking, or where
    an arm's overrides are not those of the results.
    """
    return [_verdict(claim, recipe, results) for claim in recipe.claims]


def _verdict(claim: Claim, recipe: Recipe, results: Results | None) -> Verdict:
    nothing = Interval(0, None, None, None)
    measured = results["arms"] if results else {}
    if lacking := [arm for arm in claim.arms if arm not in measured]:
        note = f"the results lack {' and '.join(lacking)}" if results else ""
        return Verdict(claim, "not_run", nothing, recipe.seeds, note)
    if changed := [a for a in claim.arms if measured[a]["overrides"] != recipe.overrides(a)]:
        note = f"the recipe of {' and '.join(changed)} has changed since"
        return Verdict(claim, "not_run", nothing, recipe.seeds, note)
    values, ours = _measure(claim, measured)
    failed = [f"{arm} seed {run['seed']}" for arm in claim.arms for run in measured[arm]["failed"]]
    notes = [f"failed: {', '.join(failed)}"] if failed else []
    if open_ended := sum(value.more or value.less for value in values.values()):
        notes.append(f"{open_ended} of {ours.n} seeds never got there; their last step is counted")
    if failed:
        verdict = "fails"
    elif ours.n < recipe.seeds:
        verdict = "not_run"
    else:
        verdict = "holds" if claim.bound.holds(list(values.values()), ours) else "fails"
    return Verdict(claim, verdict, ours, recipe.seeds, "; ".join(notes))


def _measure(claim: Claim, measured: Mapping[str, Any]) -> tuple[dict[int, Value], Interval]:
    """Give the measure at each seed, and its mean and interval."""
    by_arm = [
        {run["seed"]: _read(claim.terms, run) for run in measured[arm]["runs"]}
        for arm in claim.arms
    ]
    if len(by_arm) == 1:
        values = by_arm[0]
        return values, interval([value.number for value in values.values()])
    ours, theirs = by_arm
    values = {seed: ours[seed].minus(theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())}
    n, mean, low, high, _ = paired(
        {seed: value.number for seed, value in ours.items()},
        {seed: value.number for seed, value in theirs.items()},
    )
    return values, Interval(n, mean, low, high)


def _read(terms: tuple[Term, ...], run: Mapping[str, Any]) -> Value:
    first, *second = (_term(term, run) for term in terms)
    return first.minus(second[0]) if second else first


def _term(term: Term, run: Mapping[str, Any]) -> Value:
    if isinstance(term, Steps):
        return _steps(term, run)
    if term not in run["metrics"]:
        raise RequestError(
            f"claims.yaml: {run['name']} has no metric `{term}`; {nearest(term, run['metrics'])}"
        )
    return Value(float(run["metrics"][term]))


def _steps(term: Steps, run: Mapping[str, Any]) -> Value:
    """Find the first step that is far enough; where there is none, it takes more than all."""
    table = run["tables"].get(term.table, {})
    if term.column not in table:
        raise RequestError(
            f"claims.yaml: {run['name']} has no table `{term.table}` with a column "
            f"`{term.column}`; a callback of its arm must write it"
        )
    for step, value in zip(table["step"], table[term.column], strict=True):
        if value >= term.goal if term.upward else value <= term.goal:
            return Value(float(step))
    return Value(float(run["steps"]), more=True)
