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
            entry_name, _, _ = claim.name.rpartition("/")
            faults.append(f"{recipe.paper}/claims.yaml: {recipe.scale}.{entry_name}: {error}")
    if faults:
        raise ConfigError(faults)
    return verdicts


def _metric_faults(recipe: Recipe, results: Results) -> list[str]:
    """Return a fault for each of the recipe's metrics that no run has, if every arm has runs."""
    runs_by_arm = {
        arm: arm_results["runs"]
        for arm, arm_results in results["arms"].items()
        if arm_results["runs"] and arm in recipe.arms and not _has_changed(recipe, arm, arm_results)
    }
    if runs_by_arm.keys() != recipe.arms.keys():
        return []
    measured_metrics = {
        metric for runs in runs_by_arm.values() for run in runs for metric in run["metrics"]
    }
    return [
        f"{recipe.paper}/{recipe.scale}.yaml: metrics: no run has `{metric}`; "
        f"{suggest_key(metric, measured_metrics)}"
        for metric in recipe.metrics
        if metric not in measured_metrics
    ]


def _has_changed(recipe: Recipe, arm: str, arm_results: Mapping[str, Any]) -> bool:
    """Return whether the recipe has other overrides of an arm than its results."""
    return arm_results["overrides"] != recipe.overrides(arm)


def _judge_claim(claim: Claim, recipe: Recipe, results: Results | None) -> Verdict:
    """Return the verdict on one claim. Raises RequestError for what the runs did not measure."""
    if results is None:
        return Verdict(claim, "not_run", recipe.seeds)
    results_by_arm = results["arms"]
    if missing_arms := [arm for arm in claim.arms if arm not in results_by_arm]:
        note = f"the results lack {' and '.join(missing_arms)}"
        return Verdict(claim, "not_run", recipe.seeds, note=note)
    changed_arms = [arm for arm in claim.arms if _has_changed(recipe, arm, results_by_arm[arm])]
    if changed_arms:
        note = f"the recipe of {' and '.join(changed_arms)} has changed since"
        return Verdict(claim, "not_run", recipe.seeds, note=note)
    value_by_seed, estimate = _measure_claim(claim, results_by_arm)
    values = list(value_by_seed.values())
    failed_runs = [
        f"{arm} seed {run['seed']}" for arm in claim.arms for run in results_by_arm[arm]["failed"]
    ]
    notes = [f"failed: {', '.join(failed_runs)}"] if failed_runs else []
    if num_open_ended := sum(value.may_be_more or value.may_be_less for value in values):
        notes.append(
            f"{num_open_ended} of {estimate.n} seeds never got there; their last step is counted"
        )
    if failed_runs:
        verdict = "fails"
    elif estimate.n < recipe.seeds:
        verdict = "not_run"
    else:
        verdict = "holds" if claim.bound.holds(values, estimate) else "fails"
    makers = _makers_of(results, [run for arm in claim.arms for run in results_by_arm[arm]["runs"]])
    return Verdict(
        claim,
        verdict,
        recipe.seeds,
        estimate,
        "; ".join(notes),
        seeds=sorted(value_by_seed),
        commits=list(dict.fromkeys(map(_describe_commit, makers))),
        hardware=list(dict.fromkeys(map(_describe_hardware, makers))),
    )


def _makers_of(results: Results, runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the code and hardware that made some runs."""
    # Older results do not state the maker of a run; then all makers are returned.
    maker_indices = {run["made"] for run in runs if "made" in run}
    return [
        maker
        for index, maker in enumerate(results["made"])
        if runs and index in (maker_indices or {index})
    ]


def _describe_commit(maker: Mapping[str, Any]) -> str:
    checkout = maker["git"] or {"commit": "unknown", "dirty": False}
    return checkout["commit"][:10] + (" (dirty)" if checkout["dirty"] else "")


def _describe_hardware(maker: Mapping[str, Any]) -> str:
    threads = maker["threads"]
    return f"{maker['device'] or 'unknown device'}, {threads} thread{'s' if threads != 1 else ''}"


def _measure_claim(
    claim: Claim, results_by_arm: Mapping[str, Any]
) -> tuple[dict[int, Value], Interval]:
    """Return the measure at each seed, and its mean and interval."""
    value_by_seed, *subtrahend_by_seed = (
        {run["seed"]: _measure_run(claim.terms, run) for run in results_by_arm[arm]["runs"]}
        for arm in claim.arms
    )
    if not subtrahend_by_seed:
        return value_by_seed, t_interval([value.number for value in value_by_seed.values()])
    (subtrahends,) = subtrahend_by_seed
    differences = {
        seed: value_by_seed[seed].subtract(subtrahends[seed])
        for seed in sorted(value_by_seed.keys() & subtrahends.keys())
    }
    n, mean, low, high, _ = paired_difference(
        {seed: value.number for seed, value in value_by_seed.items()},
        {seed: value.number for seed, value in subtrahends.items()},
    )
    return differences, Interval(n, mean, low, high)


def _measure_run(terms: tuple[Term, ...], run: Mapping[str, Any]) -> Value:
    """Return the value of a run's term, or the difference of two."""
    values = [_measure_term(term, run) for term in terms]
    if len(values) == 1:
        return values[0]
    minuend, subtrahend = values
    return minuend.subtract(subtrahend)


def _measure_term(term: Term, run: Mapping[str, Any]) -> Value:
    """Return the value of a term in a run. Raises RequestError if the run did not measure it."""
    if isinstance(term, Steps):
        return _steps_until(term, run)
    if isinstance(term, Best):
        column = _table_of_column(term, run)[term.column]
        return Value(float(np.max(column) if term.upward else np.min(column)))
    if term not in run["metrics"]:
        raise RequestError(
            f"{run['name']} has no metric `{term}`; {suggest_key(term, run['metrics'])}"
        )
    return Value(float(run["metrics"][term]))


def _steps_until(term: Steps, run: Mapping[str, Any]) -> Value:
    """Return the first step that reaches the goal; without one, more than the number of steps."""
    table = _table_of_column(term, run)
    for step, value in zip(table["step"], table[term.column], strict=True):
        if value >= term.goal if term.upward else value <= term.goal:
            return Value(float(step))
    return Value(float(run["steps"]), may_be_more=True)


def _table_of_column(term: Steps | Best, run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table that has a term's column. Raises RequestError if the run has none."""
    table = run["tables"].get(term.table, {})
    if term.column not in table:
        raise RequestError(
            f"{run['name']} has no table `{term.table}` with a column `{term.column}`: no "
            "callback of its arm writes it, or the results are older than the claim"
        )
    return table
