"""Compare results over seeds, and refuse what would not be a fair comparison.

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import select

report = comparison(select(["pronoun-*"], None), by=["variant"], metric="test/loss")
report.panels[0].groups[0].over_seeds("test/loss")  # mean, low, high
report.summaries[0].differences[0].p                # what JSON has

JSON has schema, panels [PANEL] and left_out [{"run", "state", and of a damaged one "why"}]; what
the runs cannot say, such as the interval of one seed, is null:

    PANEL       dataset, where (keys that set it apart from the dataset's other panels), metric,
                higher_is_better, baseline (the keys of its group; null where it has none),
                groups [GROUP], differences [DIFFERENCE], notes [text]
    GROUP       label, its keys (each at the root, and all under `keys`), n (seeds), seeds,
                runs [name], parameters, active_parameters, flops_per_token, seconds (means),
                metrics {name: {"mean", "low", "high"}}
    DIFFERENCE  group (its label), keys, n (pairs), mean, low, high, p (Holm-corrected)

Without `by`, a group's keys are variant, num_layers and what else tells the groups apart.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from attnlab.analysis import fairness
from attnlab.analysis.arms import FIRST, Run, by_value, flatten, label, label_keys, nearest, shown
from attnlab.analysis.comparison_summary import PanelSummary, summarize_panel
from attnlab.analysis.report import IN_PYTHON, Report
from attnlab.analysis.statistics import Difference, Interval, holm, interval, paired
from attnlab.errors import RequestError
from attnlab.run_record.direction import lower_is_better
from attnlab.run_record.result import RunResult

if TYPE_CHECKING:
    # Arrow takes a while to load, which judging claims does not need.
    from attnlab.analysis.select import Selection

ENOUGH_SEEDS = 3
"""Fewer are no evidence for a claim."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, or in what the reader chose to look past."""

    label: str
    keys: Mapping[str, Any]
    runs: Sequence[Run]

    @property
    def seeds(self) -> list[int]:
        return sorted({run.result.seed for run in self.runs})

    @property
    def metrics(self) -> list[str]:
        """What every run has measured."""
        return sorted(set.intersection(*(set(run.result.metrics) for run in self.runs)))

    def by_seed(self, metric: str) -> dict[int, float]:
        """Give the metric at each seed: the mean over the arms, where several are mixed."""
        at = by_value(self.runs, lambda run: run.result.seed)
        values = {s[0].result.seed: [run.result.metrics[metric] for run in s] for s in at}
        return {seed: sum(values[seed]) / len(values[seed]) for seed in self.seeds}

    def over_seeds(self, metric: str) -> Interval:
        """Give the metric's mean and interval over the seeds."""
        return interval(list(self.by_seed(metric).values()))

    def mean(self, field: str) -> int | float:
        """Give the mean of a field of the record, such as `seconds`; a count stays whole."""
        values = [getattr(run.result, field) for run in self.runs]
        return values[0] if min(values) == max(values) else sum(values) / len(values)


@dataclass(frozen=True)
class Panel:
    """The groups that may be compared with each other: one dataset, one budget."""

    dataset: str
    where: Mapping[str, Any]
    """What sets this panel apart from others of its dataset."""
    metric: str
    higher_is_better: bool
    columns: Sequence[str]
    """The keys that tell its groups apart."""
    groups: Sequence[Group]
    baseline: Group | None
    differences: Sequence[tuple[Group, Difference]]
    """Each other group minus the baseline; p is Holm-corrected over the panel."""
    notes: Sequence[str]
    """What a reader must know before a claim is made."""


@dataclass(frozen=True)
class Comparison(Report):
    """Runs over seeds: what may be compared with what, and which runs could not be used."""

    panels: Sequence[Panel] = field(metadata=IN_PYTHON)
    left_out: Sequence[Mapping[str, str]]
    """Each run without a result, its state, and why where it is damaged."""

    @property
    def summaries(self) -> list[PanelSummary]:
        """The numbers of each panel, without the runs behind them."""
        return [summarize_panel(panel) for panel in self.panels]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it, with the summaries as panels."""
        report = super().to_json()
        panels = [summary.to_json() for summary in self.summaries]
        return {"schema": report.pop("schema"), "panels": panels, **report}


def comparison(
    selection: "Selection",
    *,
    by: Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: Collection[str] = (),
) -> Comparison:
    """Return the comparison of the runs that were selected (`compare`)."""
    panels = compare(selection.results, by=by, metric=metric, baseline=baseline, allow=allow)
    return Comparison(panels, selection.left_out)


def compare(
    results: Mapping[str, RunResult],
    *,
    by: Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: Collection[str] = (),
) -> list[Panel]:
    """Group results by the names of their runs, and set every group against a baseline.

    A group holds the runs that differ in their seed alone, or that agree on the keys `by`; groups
    come in the order in which their runs were started. The baseline ("variant=moe,num_layers=1") is
    the first group unless named. An interval is over seeds: where `allow` has "mixed", runs that
    share a seed are averaged first.

    Raises RequestError where groups are not comparable, unless `allow` names the reason ("data",
    "budget", "mixed"), and for an unknown key, metric or baseline.
    """
    runs = sorted(
        (Run(name, result, flatten(result)) for name, result in results.items()),
        key=lambda run: (run.result.started, run.name),
    )
    by = None if by is None else list(dict.fromkeys(by))
    wanted = None if baseline is None else _pairs(baseline)
    _require_known([*(by or []), *(wanted or {})], runs)
    panels = [
        _panel(part, where, by, metric, wanted, allow)
        for of_dataset in by_value(runs, lambda run: run.result.dataset)
        for where, part in fairness.apart(of_dataset, by or [])
    ]
    if wanted is not None and not any(panel.baseline for panel in panels):
        there = "; ".join(group.label for panel in panels for group in panel.groups)
        raise RequestError(f"--baseline {baseline} is none of the groups: {there}")
    return panels


def _panel(
    runs: Sequence[Run],
    where: Mapping[str, Any],
    by: Sequence[str] | None,
    metric: str | None,
    wanted: Mapping[str, str] | None,
    allow: Collection[str],
) -> Panel:
    arms = by_value(runs, lambda run: run.arm)
    telling = label_keys([arm[0].config for arm in arms])
    if by is None:
        columns, parts = telling or list(FIRST[:1]), arms
        keys = list(dict.fromkeys([*FIRST, *columns]))
    else:
        columns = [key for key in by if key not in where] or list(by)
        parts = by_value(runs, lambda run: repr(run.at(by)))
        keys = list(by)
    groups = [Group(label(part[0].at(columns)), part[0].at(keys), part) for part in parts]
    notes = fairness.check([(group.label, group.runs) for group in groups], keys, telling, allow)
    chosen = _metric(runs, metric)
    base = groups[0] if wanted is None else _baseline(groups, wanted)
    differences: list[tuple[Group, Difference]] = []
    if base:
        others = [group for group in groups if group is not base]
        against = base.by_seed(chosen)
        raw = [paired(group.by_seed(chosen), against) for group in others]
        corrected = holm([difference.p for difference in raw])
        differences = [
            (group, difference._replace(p=p))
            for group, difference, p in zip(others, raw, corrected, strict=True)
        ]
    else:
        notes.append(f"no group of {runs[0].result.dataset} is the baseline: no differences")
    return Panel(
        dataset=runs[0].result.dataset,
        where=where,
        metric=chosen,
        higher_is_better=_higher_is_better(runs, chosen),
        columns=columns,
        groups=groups,
        baseline=base,
        differences=differences,
        notes=[*notes, *_notes(runs, groups, differences)],
    )


def _metric(runs: Sequence[Run], metric: str | None) -> str:
    headlines = list(dict.fromkeys(run.result.headline for run in runs))
    if metric is None and len(headlines) > 1:
        raise RequestError(
            f"the runs on {runs[0].result.dataset} have different main metrics "
            f"({', '.join(headlines)}); choose one with --metric"
        )
    chosen = metric or headlines[0]
    for run in runs:
        measured = run.result.metrics
        if chosen not in measured:
            raise RequestError(f"{run.name} has no {chosen!r}; {nearest(chosen, measured)}")
        if not isfinite(measured[chosen]):
            raise RequestError(
                f"{chosen} of {run.name} is {measured[chosen]}, which has no place in a mean; "
                "choose another --metric, or name the runs to compare"
            )
    return chosen


def _higher_is_better(runs: Sequence[Run], metric: str) -> bool:
    directions = {lower_is_better(metric, run.result.lower_is_better) for run in runs}
    if len(directions) > 1:
        raise RequestError(
            f"less of {metric} is better in some of these runs and worse in others, which measure "
            "it by metrics of one name; compare them apart"
        )
    return directions == {False}


def _pairs(baseline: str) -> dict[str, str]:
    # A comma parts two pairs only where a key follows, for a value may hold one.
    words = [word.partition("=") for word in re.split(r",(?=[\w.]+=)", baseline)]
    if not all(equals for _, equals, _ in words):
        raise RequestError(f"--baseline {baseline}: expected KEY=VALUE, or several with commas")
    return {key: value for key, _, value in words}


def _baseline(groups: Sequence[Group], wanted: Mapping[str, str]) -> Group | None:
    found = [
        group
        for group in groups
        if all(_is(run.config.get(k), text) for run in group.runs for k, text in wanted.items())
    ]
    if len(found) > 1:
        asked = ",".join(f"{key}={text}" for key, text in wanted.items())
        names = "; ".join(group.label for group in found)
        raise RequestError(f"--baseline {asked} may be {len(found)} groups: {names}; say more")
    return found[0] if found else None


def _is(value: Any, text: str) -> bool:
    if text in (shown(value), str(value)):
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(text)
    except (TypeError, ValueError):
        return False


def _require_known(keys: Iterable[str], runs: Sequence[Run]) -> None:
    known = {key for run in runs for key in run.config}
    for key in keys:
        if key == "seed":
            raise RequestError("seed makes no group: the intervals are over the seeds")
        if key not in known:
            raise RequestError(f"the runs have no key {key!r}; {nearest(key, known)}")


def _notes(
    runs: Sequence[Run],
    groups: Sequence[Group],
    differences: Sequence[tuple[Group, Difference]],
) -> list[str]:
    notes = []
    if thin := [group.label for group in groups if len(group.seeds) < ENOUGH_SEEDS]:
        whose = "" if len(thin) == len(groups) else f" ({fairness.few(thin)})"
        notes.append(f"fewer than {ENOUGH_SEEDS} seeds: not evidence for a claim{whose}")
    if unpaired := [f"{d.n} with {g.label}" for g, d in differences if d.n < len(g.seeds)]:
        notes.append(f"seeds that the baseline shares: {fairness.few(unpaired)}")
    if any(d.p == 0 and d.low == d.high for _, d in differences):
        notes.append("p is 0 where every seed gave the very same difference, which has no spread")
    if early := [run.name for run in runs if run.result.tokens < run.result.budget_tokens]:
        notes.append(
            f"{len(early)} of {len(runs)} runs stopped before their budget was used: "
            f"{fairness.few(early)}"
        )
    return notes
