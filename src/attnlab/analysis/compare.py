"""Compare results over seeds, and refuse an unfair comparison.

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import select_runs

report = comparison(select_runs(["pronoun-*"], None), by=["variant"], metric="test/loss")
report.panels[0].groups[0].over_seeds("test/loss")  # mean, low, high
report.summaries[0].differences[0].p                # as in JSON
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from attnlab.analysis import fairness
from attnlab.analysis.arms import (
    COST_FIELDS,
    VARIANT_KEYS,
    FinishedRun,
    describe_keys,
    flatten_config,
    group_by_value,
    is_written_as,
    label_keys,
    naming_keys,
    resolve_key,
    short_label,
    suggest_key,
)
from attnlab.analysis.comparison_summary import PanelSummary, summarize_panel
from attnlab.analysis.left_out import (
    LeftOut,
    abbreviate_names,
    describe_by_reason,
    describe_by_state,
)
from attnlab.analysis.report import IN_PYTHON, Report, align_rows
from attnlab.analysis.statistics import (
    ENOUGH_SEEDS,
    Difference,
    Interval,
    estimate,
    holm_correction,
    paired_estimate,
)
from attnlab.errors import RequestError
from attnlab.run_record.bounds import Bounds, metric_bounds
from attnlab.run_record.direction import lower_is_better
from attnlab.run_record.result import RunResult

if TYPE_CHECKING:
    from pandas import DataFrame

    # Arrow takes a while to load, and judging claims does not need it.
    from attnlab.analysis.run_list import Selection


BEST = "best"
"""The word for the group with the best mean, as a baseline."""
BaselineChoice = Mapping[str, str] | Literal["best"] | None
"""Values of config keys as texts, the group with the best mean, or the first group."""


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, or also in config keys that `by` leaves out."""

    label: str
    keys: Mapping[str, Any]
    runs: Sequence[FinishedRun] = field(repr=False)

    @property
    def seeds(self) -> list[int]:
        return sorted({run.result.seed for run in self.runs})

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that every run has measured."""
        return sorted(set.intersection(*(set(run.result.metrics) for run in self.runs)))

    def mean_by_seed(self, metric: str) -> dict[int, float]:
        """Return the metric at each seed; where arms are mixed, the mean over the arms."""
        runs_by_seed = group_by_value(self.runs, lambda run: run.result.seed)
        values_by_seed = {
            seed_runs[0].result.seed: [
                value for run in seed_runs if (value := run.value(metric)) is not None
            ]
            for seed_runs in runs_by_seed
        }
        return {seed: sum(values_by_seed[seed]) / len(values_by_seed[seed]) for seed in self.seeds}

    def over_seeds(self, metric: str) -> Interval:
        """Return the metric's mean and, for three seeds or more, its interval (`estimate`)."""
        return estimate(list(self.mean_by_seed(metric).values()), self.bounds(metric))

    def median_run(
        self, value_of: Callable[[FinishedRun], float | None], higher_is_better: bool = True
    ) -> FinishedRun:
        """Return the run of the median value; of an even number, the worse of the middle two."""

        def quality_and_seed(run: FinishedRun) -> tuple[float, int]:
            value = value_of(run)
            quality = -inf if value is None else value if higher_is_better else -value
            return quality, run.result.seed

        return sorted(self.runs, key=quality_and_seed)[(len(self.runs) - 1) // 2]

    def bounds(self, metric: str) -> Bounds:
        """Return the range of a metric's values."""
        return metric_bounds(metric, self.runs[0].result.bounds)

    def mean(self, field_name: str) -> int | float:
        """Return the mean of a field of the results, such as `seconds`; equal values stay as is."""
        values = [getattr(run.result, field_name) for run in self.runs]
        return values[0] if min(values) == max(values) else sum(values) / len(values)


@dataclass(frozen=True)
class Panel:
    """The groups that may be compared with each other: one dataset, one budget."""

    dataset: str
    panel_keys: Mapping[str, Any]
    """The config values that distinguish this panel from others of its dataset."""
    metric: str
    higher_is_better: bool
    group_keys: Sequence[str]
    """The keys that distinguish its groups."""
    groups: Sequence[Group]
    baseline: Group | None
    differences: Sequence[tuple[Group, Difference]]
    """Each other group minus the baseline; p is Holm-corrected over the panel."""
    notes: Sequence[str]
    """What a reader must know before making a claim."""


@dataclass(frozen=True, repr=False)
class Comparison(Report):
    """Runs over seeds: the panels that may be compared, and the runs that could not be used.

    In JSON, `panels` are their summaries (PanelSummary).
    """

    panels: Sequence[Panel] = field(metadata=IN_PYTHON)
    left_out: Sequence[LeftOut]
    notes: Sequence[str] = ()
    """Why the runs of a dataset make several panels."""

    @property
    def summaries(self) -> list[PanelSummary]:
        """The numbers of each panel, without the runs behind them."""
        return [summarize_panel(panel) for panel in self.panels]

    def frame(self) -> "DataFrame":
        """Return a row for each group and metric: dataset, keys, metric, n, mean, low and high."""
        from pandas import DataFrame

        return DataFrame(
            {
                "dataset": panel.dataset,
                **panel.panel_keys,
                "group": group.label,
                **group.keys,
                "metric": metric,
                **group.over_seeds(metric)._asdict(),
            }
            for panel in self.panels
            for group in panel.groups
            for metric in group.metrics
        )

    @property
    def footnotes(self) -> list[str]:
        """What a reader of the tables must know: what is not in them, and why."""
        state_text = describe_by_state(self.left_out)
        return [
            *self.notes,
            *(f"left out: {line}" for line in describe_by_reason(self.left_out)),
            *([f"left out, because they have no result: {state_text}"] if state_text else []),
        ]

    def __repr__(self) -> str:
        """Return a table for each panel, with a line for each group."""
        lines = []
        for panel in self.panels:
            panel_text = f" at {describe_keys(panel.panel_keys)}" if panel.panel_keys else ""
            lines.append(f"{panel.dataset}{panel_text}: {panel.metric}")
            intervals = [group.over_seeds(panel.metric) for group in panel.groups]
            rows = [["group", *Interval._fields]]
            rows += [
                [group.label, *("-" if value is None else f"{value:.4g}" for value in interval)]
                for group, interval in zip(panel.groups, intervals, strict=True)
            ]
            lines += align_rows(rows)
        if self.left_out:
            lines.append(f"left out: {len(self.left_out)} runs")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it, with the summaries as panels."""
        fields = super().to_json()
        panels = [summary.to_json() for summary in self.summaries]
        return {"schema": fields.pop("schema"), "panels": panels, **fields}


def comparison(
    selection: "Selection",
    *,
    by: str | Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: str | Collection[str] = (),
) -> Comparison:
    """Return the comparison of the selected runs (`compare`)."""
    panels, left_out, notes = compare_sets(
        selection.results, by=by, metric=metric, baseline=baseline, allow=allow
    )
    return Comparison(panels, [*selection.left_out, *left_out], notes)


def compare(
    results: Mapping[str, RunResult],
    *,
    by: str | Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: str | Collection[str] = (),
) -> list[Panel]:
    """Return the panels of `compare_sets`."""
    return compare_sets(results, by=by, metric=metric, baseline=baseline, allow=allow).panels


class ComparedSets(NamedTuple):
    """A panel for each comparable set, and what has none."""

    panels: list[Panel]
    left_out: list[LeftOut]
    """The finished runs of sets without a panel, with the reason."""
    notes: list[str]
    """Why the sets of a dataset are not compared with each other."""


def compare_sets(
    results: Mapping[str, RunResult],
    *,
    by: str | Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: str | Collection[str] = (),
) -> ComparedSets:
    """Group results, given by the names of their runs, and compare every group with a baseline.

    Only runs with equal data and an equal budget are compared: each such set of a dataset has a
    panel of its own, unless `allow` has "data" or "budget". A single run beside larger sets is left
    out. A group holds the runs that differ only in their seed, or that agree on the keys `by`, of
    which the end is enough (`lr`). Groups are ordered by their keys, values in the order in which
    runs with them were started. The metric may be a cost (`arms.COST_FIELDS`). The baseline
    ("variant=moe,num_layers=1", or "best" for the group with the best mean) is by default the first
    group. An interval is over seeds: where `allow` has "mixed", runs that share a seed are averaged
    first.

    A set that cannot be compared does not block the others. Raises RequestError where none can be,
    and for an unknown key, metric or baseline.
    """
    runs = sorted(
        (FinishedRun(name, result, flatten_config(result)) for name, result in results.items()),
        key=lambda run: (run.result.started, run.name),
    )
    by = None if by is None else list(dict.fromkeys([by] if isinstance(by, str) else by))
    allow = [allow] if isinstance(allow, str) else list(allow)
    _require_known_allowances(allow)
    existing_keys = {key for run in runs for key in run.config}
    if by is not None:
        by = list(dict.fromkeys(_require_key(name, existing_keys) for name in by))
    baseline_values = None if baseline is None else _parse_baseline(baseline)
    if isinstance(baseline_values, Mapping):
        baseline_values = {
            _require_key(name, existing_keys): text for name, text in baseline_values.items()
        }
    compared_sets = ComparedSets([], [], [])
    errors: list[RequestError] = []
    for dataset_runs in group_by_value(runs, lambda run: run.result.dataset):
        dataset_sets, dataset_errors = _compare_dataset(
            dataset_runs, by, metric, baseline_values, allow
        )
        compared_sets.panels.extend(dataset_sets.panels)
        compared_sets.left_out.extend(dataset_sets.left_out)
        compared_sets.notes.extend(dataset_sets.notes)
        errors.extend(dataset_errors)
    if not compared_sets.panels:
        raise errors[0]
    if baseline_values is not None and not any(panel.baseline for panel in compared_sets.panels):
        labels = "; ".join(group.label for panel in compared_sets.panels for group in panel.groups)
        raise RequestError(f"baseline {baseline} is none of the groups: {labels}")
    return compared_sets


def _require_known_allowances(allow: Iterable[str]) -> None:
    for allowance in allow:
        if allowance not in fairness.ALLOWANCES:
            expected = ", ".join(fairness.ALLOWANCES)
            raise RequestError(f"allow {allowance!r}: expected one of {expected}")


def _compare_dataset(
    runs: Sequence[FinishedRun],
    by: Sequence[str] | None,
    metric: str | None,
    baseline_values: BaselineChoice,
    allow: Collection[str],
) -> tuple[ComparedSets, list[RequestError]]:
    """Compare the runs of one dataset set by set, and return why sets have no panel as errors."""
    compared_sets = ComparedSets([], [], [])
    errors = []
    distinguishing_keys = label_keys([run.config for run in runs])
    sets = fairness.comparable_sets(runs, by or [], distinguishing_keys, allow)
    if len(sets) > 1:
        compared_sets.notes.append(fairness.describe_sets(sets))
    largest_size = max(len(comparable_set.runs) for comparable_set in sets)
    for comparable_set in sets:
        if len(comparable_set.runs) == 1 < largest_size:
            reason = f"nothing to compare it with at {describe_keys(comparable_set.keys)}"
            compared_sets.left_out.extend(_leave_out(comparable_set.runs, reason))
            continue
        try:
            panel = _compare_runs(
                comparable_set.runs, comparable_set.keys, by, metric, baseline_values, allow
            )
        except RequestError as error:
            errors.append(error)
            compared_sets.left_out.extend(_leave_out(comparable_set.runs, str(error)))
        else:
            compared_sets.panels.append(panel)
    return compared_sets, errors


def _leave_out(runs: Sequence[FinishedRun], reason: str) -> list[LeftOut]:
    return [LeftOut(run.name, "finished", reason) for run in runs]


def _compare_runs(
    runs: Sequence[FinishedRun],
    panel_keys: Mapping[str, Any],
    by: Sequence[str] | None,
    metric: str | None,
    baseline_values: BaselineChoice,
    allow: Collection[str],
) -> Panel:
    """Compare the runs of one dataset and budget."""
    runs_of_arms = group_by_value(runs, lambda run: run.arm_identity)
    distinguishing_keys = label_keys([arm_runs[0].config for arm_runs in runs_of_arms])
    if by is None:
        runs_of_groups = runs_of_arms
        group_keys = distinguishing_keys or naming_keys(runs)[:1]
        shared_keys = list(dict.fromkeys([*VARIANT_KEYS, *group_keys]))
    else:
        runs_of_groups = group_by_value(runs, lambda run: repr(run.select_keys(by)))
        group_keys = [key for key in by if key not in panel_keys] or list(by)
        shared_keys = list(by)
    groups = _order_by_keys(
        [
            Group(
                describe_keys(group_runs[0].select_keys(group_keys)),
                group_runs[0].select_keys(shared_keys),
                group_runs,
            )
            for group_runs in runs_of_groups
        ],
        group_keys,
    )
    notes = fairness.check_fairness(
        [(group.label, group.runs) for group in groups], shared_keys, distinguishing_keys, allow
    )
    metric_name = _choose_metric(runs, metric)
    higher_is_better = _higher_is_better(runs, metric_name)
    if baseline_values is None:
        baseline = groups[0]
    elif isinstance(baseline_values, Mapping):
        baseline = _select_baseline(groups, baseline_values)
    else:
        baseline = _best_group(groups, metric_name, higher_is_better)
        notes.append(
            "the baseline has the best mean of these very runs, so it seems better than it is"
        )
    if baseline is None:
        notes.append(f"no group of {runs[0].result.dataset} is the baseline: no differences")
        differences = []
    else:
        differences = _paired_differences(groups, baseline, metric_name)
    return Panel(
        dataset=runs[0].result.dataset,
        panel_keys=panel_keys,
        metric=metric_name,
        higher_is_better=higher_is_better,
        group_keys=group_keys,
        groups=groups,
        baseline=baseline,
        differences=differences,
        notes=[*notes, *_evidence_notes(runs, groups, group_keys, differences)],
    )


def _order_by_keys(groups: Sequence[Group], keys: Sequence[str]) -> list[Group]:
    """Return the groups ordered by their keys, the values of each in order of first occurrence."""
    ranks_by_key = {
        key: {value: rank for rank, value in enumerate(_distinct_values(groups, key))}
        for key in keys
    }
    return sorted(groups, key=lambda group: [ranks_by_key[k][repr(group.keys[k])] for k in keys])


def _distinct_values(groups: Sequence[Group], key: str) -> list[str]:
    return list(dict.fromkeys(repr(group.keys[key]) for group in groups))


def _best_group(groups: Sequence[Group], metric: str, higher_is_better: bool) -> Group:
    """Return the group with the best mean of a metric, the first of several."""

    def mean_to_maximize(group: Group) -> float:
        mean = group.over_seeds(metric).mean
        assert mean is not None
        return mean if higher_is_better else -mean

    return max(groups, key=mean_to_maximize)


def _paired_differences(
    groups: Sequence[Group], baseline: Group, metric: str
) -> list[tuple[Group, Difference]]:
    """Return each other group with its difference to the baseline, p Holm-corrected."""
    other_groups = [group for group in groups if group is not baseline]
    baseline_by_seed = baseline.mean_by_seed(metric)
    differences = [
        paired_estimate(group.mean_by_seed(metric), baseline_by_seed, group.bounds(metric))
        for group in other_groups
    ]
    corrected_p_values = holm_correction([difference.p for difference in differences])
    return [
        (group, difference._replace(p=p))
        for group, difference, p in zip(other_groups, differences, corrected_p_values, strict=True)
    ]


def _choose_metric(runs: Sequence[FinishedRun], metric: str | None) -> str:
    """Return the metric to compare, by default the runs' main one; refuse one that a run lacks."""
    headlines = list(dict.fromkeys(run.result.headline for run in runs))
    if metric is None and len(headlines) > 1:
        raise RequestError(
            f"the runs on {runs[0].result.dataset} have different main metrics "
            f"({', '.join(headlines)}); choose a metric"
        )
    metric_name = metric or headlines[0]
    for run in runs:
        value = run.value(metric_name)
        if value is None:
            hint = suggest_key(metric_name, run.result.metrics)
            raise RequestError(f"{run.name} has no {metric_name!r}; {hint}")
        if not isfinite(value):
            raise RequestError(
                f"{metric_name} of {run.name} is {value}, which has no place in a mean; choose "
                "another metric, or name the runs to compare"
            )
    return metric_name


def _higher_is_better(runs: Sequence[FinishedRun], metric: str) -> bool:
    """Return whether more of a metric is better. Raises RequestError where the runs disagree."""
    if metric in COST_FIELDS:
        return False
    is_lower_better_in_runs = {lower_is_better(metric, run.result.lower_is_better) for run in runs}
    if len(is_lower_better_in_runs) > 1:
        raise RequestError(
            f"less of {metric} is better in some of these runs and worse in others, which measure "
            "it by metrics of one name; compare them apart"
        )
    return is_lower_better_in_runs == {False}


def _parse_baseline(baseline: str) -> dict[str, str] | Literal["best"]:
    """Parse "KEY=VALUE,..." into a dict; "best" is returned as it is."""
    if baseline == BEST:
        return BEST
    # A value may contain a comma, so a comma separates two pairs only where a key follows.
    pairs = [pair.partition("=") for pair in re.split(r",(?=[\w.]+=)", baseline)]
    if not all(equals for _, equals, _ in pairs):
        raise RequestError(f"baseline {baseline}: expected best, KEY=VALUE, or several with commas")
    return {key: value for key, _, value in pairs}


def _select_baseline(groups: Sequence[Group], baseline_values: Mapping[str, str]) -> Group | None:
    """Return the group all of whose runs have the values; None where no group has them."""
    matching_groups = [
        group
        for group in groups
        if all(
            _is_baseline_value(run.config.get(key), value_text)
            for run in group.runs
            for key, value_text in baseline_values.items()
        )
    ]
    if len(matching_groups) > 1:
        baseline_text = ",".join(
            f"{key}={value_text}" for key, value_text in baseline_values.items()
        )
        labels = "; ".join(group.label for group in matching_groups)
        raise RequestError(
            f"baseline {baseline_text} may be {len(matching_groups)} groups: {labels}; say more"
        )
    return matching_groups[0] if matching_groups else None


def _is_baseline_value(value: Any, value_text: str) -> bool:
    """Return whether a config value is the one that the user wrote as a text."""
    if is_written_as(value, value_text):
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(value_text)
    except (TypeError, ValueError):
        return False


def _require_key(name: str, existing_keys: Collection[str]) -> str:
    """Return the key that a name stands for. Raises RequestError for none, and for the seed."""
    if name == "seed":
        raise RequestError("seed makes no group: the intervals are over the seeds")
    key = resolve_key(name, existing_keys)
    if key is None:
        raise RequestError(f"the runs have no key {name!r}; {suggest_key(name, existing_keys)}")
    return key


def _evidence_notes(
    runs: Sequence[FinishedRun],
    groups: Sequence[Group],
    group_keys: Sequence[str],
    differences: Sequence[tuple[Group, Difference]],
) -> list[str]:
    """Return notes on what weakens the evidence, such as few seeds or runs that stopped early."""
    notes = []
    groups_with_few_seeds = [group.label for group in groups if len(group.seeds) < ENOUGH_SEEDS]
    if groups_with_few_seeds:
        are_all = len(groups_with_few_seeds) == len(groups)
        group_text = "" if are_all else f" ({abbreviate_names(groups_with_few_seeds)})"
        notes.append(f"fewer than {ENOUGH_SEEDS} seeds: not evidence for a claim{group_text}")
    shared_seed_counts = [f"{d.n} with {g.label}" for g, d in differences if d.n < len(g.seeds)]
    if shared_seed_counts:
        notes.append(f"seeds that the baseline shares: {abbreviate_names(shared_seed_counts)}")
    equal_groups = _groups_with_equal_results(groups, group_keys)
    if equal_groups:
        sets_text = "; ".join(" = ".join(labels) for labels in equal_groups)
        notes.append(
            f"equal in every metric of every seed, so probably the same computation: {sets_text}"
        )
    if any(d.p == 0 and d.low == d.high for _, d in differences):
        notes.append("p is 0 where every seed gave the very same difference, which has no spread")
    runs_stopped_early = [run.name for run in runs if run.result.tokens < run.result.budget_tokens]
    if runs_stopped_early:
        notes.append(
            f"{len(runs_stopped_early)} of {len(runs)} runs stopped before their budget was used: "
            f"{abbreviate_names(runs_stopped_early)}"
        )
    return notes


def _groups_with_equal_results(groups: Sequence[Group], keys: Sequence[str]) -> list[list[str]]:
    """Return short labels of groups that have the same metrics at each seed, to the last digit."""
    labels_by_results: dict[str, list[str]] = {}
    for group in groups:
        metrics_by_seed = sorted(
            (run.result.seed, sorted(run.result.metrics.items())) for run in group.runs
        )
        label = short_label({key: group.keys[key] for key in keys})
        labels_by_results.setdefault(repr(metrics_by_seed), []).append(label)
    return [labels for labels in labels_by_results.values() if len(labels) > 1]
