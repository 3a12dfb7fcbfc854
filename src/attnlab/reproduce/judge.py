"""Claims against results: pure functions, so that judging again needs no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from attnlab.analysis.arms import nearest
from attnlab.analysis.statistics import Interval, interval, paired
from attnlab.errors import ConfigError, RequestError
from attnlab.reproduce.claims import Best, Claim, Steps, Term, Value
from attnlab.reproduce.recipe import Recipe

Results = Mapping[str, Any]
"""What results/SCALE.json holds; see results.py."""
VERDICTS = ("holds", "fails", "not_run")
NOTHING = Interval(0, None, None, None)


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: `ours` is the mean over n seeds of those needed, and its interval."""

    claim: Claim
    verdict: Literal["holds", "fails", "not_run"]
    needed: int
    ours: Interval = NOTHING
    note: str = ""
    """What a reader must know beside the numbers."""
    seeds: Sequence[int] = ()
    commits: Sequence[str] = ()
    hardware: Sequence[str] = ()


def judge(recipe: Recipe, results: Results | None) -> list[Verdict]:
    """Judge every claim of a recipe by its results; None where nothing has been run.

    A claim fails where a run of its arms failed. It is not run where seeds are lacking, or where
    an arm's overrides are not those of the results. Raises ConfigError with all that the claims and
    the recipe's `metrics` name and the runs have not measured.
    """
    verdicts, faults = [], _unmeasured(recipe, results) if results else []
    for claim in recipe.claims:
        try:
            verdicts.append(_verdict(claim, recipe, results))
        except RequestError as error:
            name = claim.name.rpartition("/")[0]
            faults.append(f"{recipe.paper}/claims.yaml: {recipe.scale}.{name}: {error}")
    if faults:
        raise ConfigError(faults)
    return verdicts


def _unmeasured(recipe: Recipe, results: Results) -> list[str]:
    """Name the metrics that no arm has, once there is a run of each."""
    arms = {
        arm: of_arm["runs"]
        for arm, of_arm in results["arms"].items()
        if of_arm["runs"] and arm in recipe.arms and not _changed(recipe, arm, of_arm)
    }
    if arms.keys() != recipe.arms.keys():
        return []
    there = {metric for runs in arms.values() for run in runs for metric in run["metrics"]}
    return [
        f"{recipe.paper}/{recipe.scale}.yaml: metrics: no run has `{metric}`; "
        f"{nearest(metric, there)}"
        for metric in recipe.metrics
        if metric not in there
    ]


def _changed(recipe: Recipe, arm: str, of_arm: Mapping[str, Any]) -> bool:
    return of_arm["overrides"] != recipe.overrides(arm)


def _verdict(claim: Claim, recipe: Recipe, results: Results | None) -> Verdict:
    if results is None:
        return Verdict(claim, "not_run", recipe.seeds)
    measured = results["arms"]
    if lacking := [arm for arm in claim.arms if arm not in measured]:
        note = f"the results lack {' and '.join(lacking)}"
        return Verdict(claim, "not_run", recipe.seeds, note=note)
    if changed := [arm for arm in claim.arms if _changed(recipe, arm, measured[arm])]:
        note = f"the recipe of {' and '.join(changed)} has changed since"
        return Verdict(claim, "not_run", recipe.seeds, note=note)
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
    makers = _makers(results, [run for arm in claim.arms for run in measured[arm]["runs"]])
    return Verdict(
        claim,
        verdict,
        recipe.seeds,
        ours,
        "; ".join(notes),
        seeds=sorted(values),
        commits=list(dict.fromkeys(map(_commit, makers))),
        hardware=list(dict.fromkeys(map(_hardware, makers))),
    )


def _makers(results: Results, runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    # Older results do not say which of the makers a run has.
    known = {run["made"] for run in runs if "made" in run}
    return [maker for at, maker in enumerate(results["made"]) if runs and at in (known or {at})]


def _commit(maker: Mapping[str, Any]) -> str:
    git = maker["git"] or {"commit": "unknown", "dirty": False}
    return git["commit"][:10] + (" (dirty)" if git["dirty"] else "")


def _hardware(maker: Mapping[str, Any]) -> str:
    threads = maker["threads"]
    return f"{maker['device'] or 'unknown device'}, {threads} thread{'s' if threads != 1 else ''}"


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
    if isinstance(term, Best):
        column = _table(term, run)[term.column]
        return Value(float(np.max(column) if term.upward else np.min(column)))
    if term not in run["metrics"]:
        raise RequestError(f"{run['name']} has no metric `{term}`; {nearest(term, run['metrics'])}")
    return Value(float(run["metrics"][term]))


def _steps(term: Steps, run: Mapping[str, Any]) -> Value:
    """Find the first step that is far enough; where there is none, it takes more than all."""
    table = _table(term, run)
    for step, value in zip(table["step"], table[term.column], strict=True):
        if value >= term.goal if term.upward else value <= term.goal:
            return Value(float(step))
    return Value(float(run["steps"]), more=True)


def _table(term: Steps | Best, run: Mapping[str, Any]) -> Mapping[str, Any]:
    table = run["tables"].get(term.table, {})
    if term.column not in table:
        raise RequestError(
            f"{run['name']} has no table `{term.table}` with a column `{term.column}`: no "
            "callback of its arm writes it, or the results are older than the claim"
        )
    return table
