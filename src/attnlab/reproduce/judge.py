"""Judges claims by results, in pure functions, so that judging again needs no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from attnlab.analysis.arms import suggest_key
from attnlab.analysis.statistics import Interval, paired_difference, t_interval
from attnlab.errors import ConfigError, RequestError
from attnlab.reproduce.claims import Best, Claim, Steps, Term, Value
from attnlab.reproduce.recipe import Recipe

Results = Mapping[str, Any]
"""The content of results/SCALE.json; see results.py."""
VERDICTS = ("holds", "fails", "not_run")
NO_USER_TARGETS = Interval(0, None, None, None)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim; `ours` is the mean over the seeds, with its interval."""

    claim: Claim
    verdict: Literal["holds", "fails", "not_run"]
    needed: int
    ours: Interval = NO_USER_TARGETS
    note: str = ""
    """What a reader must know besides the numbers."""
    seeds: Sequence[int] = ()
    commits: Sequence[str] = ()
    hardware: Sequence[str] = ()


def judge(recipe: Recipe, results: Results | None) -> list[Verdict]:
    """Return a verdict for every claim of a recipe, by its results (None if nothing was run).

    A claim fails if a run of its arms failed. It is not run if seeds are missing, or if an arm's
    overrides differ from those of the results. Raises ConfigError with every metric and column that
    the claims and the recipe's `metrics` name but the runs did not measure.
    """
    verdicts, faults = [], _metric_faults(recipe, results) if results else []
    for claim in recipe.claims:
        try:
            verdicts.append(_judge_claim(claim, recipe, results))
        except RequestError as error:
            name = claim.name.rpartition("/")[0]
            faults.append(f"{recipe.paper}/claims.yaml: {recipe.scale}.{name}: {error}")
    if faults:
        raise ConfigError(faults)
    return verdicts


def _metric_faults(recipe: Recipe, results: Results) -> list[str]:
    """Return a fault for each of the recipe's metrics that no run has, if every arm has runs."""
    arms = {
        arm: arm_results["runs"]
        for arm, arm_results in results["arms"].items()
        if arm_results["runs"] and arm in recipe.arms and not _has_changed(recipe, arm, arm_results)
    }
    if arms.keys() != recipe.arms.keys():
        return []
    measured_metrics = {
        metric for runs in arms.values() for run in runs for metric in run["metrics"]
    }
    return [
        f"{recipe.paper}/{recipe.scale}.yaml: metrics: no run has `{metric}`; "
        f"{suggest_key(metric, measured_metrics)}"
        for metric in recipe.metrics
        if metric not in measured_metrics
    ]


def _has_changed(recipe: Recipe, arm: str, arm_results: Mapping[str, Any]) -> bool:
    return arm_results["overrides"] != recipe.overrides(arm)


def _judge_claim(claim: Claim, recipe: Recipe, results: Results | None) -> Verdict:
    if results is None:
        return Verdict(claim, "not_run", recipe.seeds)
    arm_results = results["arms"]
    if missing_arms := [arm for arm in claim.arms if arm not in arm_results]:
        note = f"the results lack {' and '.join(missing_arms)}"
        return Verdict(claim, "not_run", recipe.seeds, note=note)
    if changed_arms := [arm for arm in claim.arms if _has_changed(recipe, arm, arm_results[arm])]:
        note = f"the recipe of {' and '.join(changed_arms)} has changed since"
        return Verdict(claim, "not_run", recipe.seeds, note=note)
    values, estimate = _measure(claim, arm_results)
    failed_runs = [
        f"{arm} seed {run['seed']}" for arm in claim.arms for run in arm_results[arm]["failed"]
    ]
    notes = [f"failed: {', '.join(failed_runs)}"] if failed_runs else []
    if num_open_ended := sum(value.more or value.less for value in values.values()):
        notes.append(
            f"{num_open_ended} of {estimate.n} seeds never got there; their last step is counted"
        )
    if failed_runs:
        verdict = "fails"
    elif estimate.n < recipe.seeds:
        verdict = "not_run"
    else:
        verdict = "holds" if claim.bound.holds(list(values.values()), estimate) else "fails"
    makers = _makers_of(results, [run for arm in claim.arms for run in arm_results[arm]["runs"]])
    return Verdict(
        claim,
        verdict,
        recipe.seeds,
        estimate,
        "; ".join(notes),
        seeds=sorted(values),
        commits=list(dict.fromkeys(map(_describe_commit, makers))),
        hardware=list(dict.fromkeys(map(_describe_hardware, makers))),
    )


def _makers_of(results: Results, runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    # Older results do not state the maker of a run; then all makers are returned.
    maker_indices = {run["made"] for run in runs if "made" in run}
    return [
        maker
        for index, maker in enumerate(results["made"])
        if runs and index in (maker_indices or {index})
    ]


def _describe_commit(maker: Mapping[str, Any]) -> str:
    git = maker["git"] or {"commit": "unknown", "dirty": False}
    return git["commit"][:10] + (" (dirty)" if git["dirty"] else "")


def _describe_hardware(maker: Mapping[str, Any]) -> str:
    threads = maker["threads"]
    return f"{maker['device'] or 'unknown device'}, {threads} thread{'s' if threads != 1 else ''}"


def _measure(claim: Claim, arm_results: Mapping[str, Any]) -> tuple[dict[int, Value], Interval]:
    """Return the measure at each seed, and its mean and interval."""
    by_arm = [
        {run["seed"]: _measure_run(claim.terms, run) for run in arm_results[arm]["runs"]}
        for arm in claim.arms
    ]
    if len(by_arm) == 1:
        values = by_arm[0]
        return values, t_interval([value.number for value in values.values()])
    minuends, subtrahends = by_arm
    values = {
        seed: minuends[seed].minus(subtrahends[seed])
        for seed in sorted(minuends.keys() & subtrahends.keys())
    }
    n, mean, low, high, _ = paired_difference(
        {seed: value.number for seed, value in minuends.items()},
        {seed: value.number for seed, value in subtrahends.items()},
    )
    return values, Interval(n, mean, low, high)


def _measure_run(terms: tuple[Term, ...], run: Mapping[str, Any]) -> Value:
    minuend, *subtrahend = (_measure_term(term, run) for term in terms)
    return minuend.minus(subtrahend[0]) if subtrahend else minuend


def _measure_term(term: Term, run: Mapping[str, Any]) -> Value:
    if isinstance(term, Steps):
        return _steps_until(term, run)
    if isinstance(term, Best):
        column = _table(term, run)[term.column]
        return Value(float(np.max(column) if term.upward else np.min(column)))
    if term not in run["metrics"]:
        raise RequestError(
            f"{run['name']} has no metric `{term}`; {suggest_key(term, run['metrics'])}"
        )
    return Value(float(run["metrics"][term]))


def _steps_until(term: Steps, run: Mapping[str, Any]) -> Value:
    """Return the first step that reaches the goal; without one, more than the number of steps."""
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
