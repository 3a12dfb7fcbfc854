"""One card for each arm: its pictures, together with the numbers that they need."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from attnlab.analysis.arms import FinishedRun
from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.dataset_class import dataset_class
from attnlab.analysis.findings import read_findings
from attnlab.analysis.statistics import estimate
from attnlab.analysis.table import TableCell, format_count, format_number, interval_cell
from attnlab.figures import attention_panels
from attnlab.report.arm_styles import ArmStyle, arm_styles
from attnlab.report.probe_history import PROBES, ProbeHistory, probe_histories
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.pattern_table import Pattern, load_patterns, probe_names
from attnlab.run_record.record import Record


class Measure(NamedTuple):
    """A number of a card, or the reason why there is none."""

    name: str
    value: TableCell
    reason_missing: str = ""


@dataclass(frozen=True)
class SeedView:
    """The probe histories of one seed, and the head that is shown first."""

    run: str
    """The name of the run."""
    seed: int
    histories: Sequence[ProbeHistory]
    """One for each probe; the first is shown first."""
    head_index: int
    """The index of the head that is shown first, in `heads` of the first history."""
    is_chosen: bool = False
    """Whether evidence chose that head on validation data."""
    value: str = ""
    """The weight of its chosen head, else its main metric, with the name; empty for a text."""
    is_median: bool = False
    """Whether that is the median of the arm's seeds."""

    @property
    def whose(self) -> str:
        """The seed, its own value, and whether that is the median."""
        median = ", the median" if self.is_median else ""
        return f"seed {self.seed}{median}{f': {self.value}' if self.value else ''}"


@dataclass(frozen=True)
class ArmCard:
    """An arm with its pictures."""

    style: ArmStyle
    n: int
    size: str
    """The number of parameters, with a unit."""
    measures: Sequence[Measure]
    seed_views: Sequence[SeedView]
    """The seed of the median value first: it is the one that is shown."""
    last_step: str = ""
    """The step after which the numbers were measured."""
    has_knock_out: bool = False
    """Whether a number measures the answers without the attention that a picture shows."""


def arm_cards(panel: Panel, records: Mapping[str, Record]) -> list[ArmCard]:
    """Build a card for each group that recorded patterns."""
    cards = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        findings_by_run = {run.name: read_findings(run.result) for run in group.runs}
        shown_value = _value_of_pictures(group, panel, findings_by_run)
        median_run = group.median_run(shown_value.of_run, shown_value.higher_is_better)
        views = []
        for run in sorted(
            group.runs, key=lambda run: (run.name != median_run.name, run.result.seed)
        ):
            view = _seed_view(run, records[run.name], findings_by_run[run.name])
            if view is not None:
                is_median = run is median_run and len(group.runs) > 1
                views.append(replace(view, value=shown_value.describe(run), is_median=is_median))
        if views:
            card_findings = findings_by_run[views[0].run]
            cards.append(_build_card(group, panel.metric, style, views, card_findings))
    return cards


@dataclass(frozen=True)
class ShownValue:
    """The number of a run by which its picture is compared with those of other seeds."""

    name: str
    values: Mapping[str, float | None]
    """By the name of the run."""
    higher_is_better: bool = True

    def of_run(self, run: FinishedRun) -> float | None:
        """Return the value of a run."""
        return self.values[run.name]

    def describe(self, run: FinishedRun) -> str:
        """Return the value of a run with its name; empty where it has none."""
        value = self.of_run(run)
        return "" if value is None else f"{self.name} {format_number(value, 3)}"


def _value_of_pictures(
    group: Group, panel: Panel, findings_by_run: Mapping[str, Mapping[str, Finding]]
) -> ShownValue:
    """Return the weight of the heads that pictures open at, else the main metric."""
    opening_heads = {name: _opening_head(findings) for name, findings in findings_by_run.items()}
    weights = {name: head.weight for name, head in opening_heads.items() if head is not None}
    if len(weights) == len(group.runs):
        return ShownValue("weight", weights)
    values = {run.name: run.value(panel.metric) for run in group.runs}
    return ShownValue(_metric_label(panel.metric), values, panel.higher_is_better)


def _build_card(
    group: Group,
    metric: str,
    style: ArmStyle,
    views: Sequence[SeedView],
    card_findings: Mapping[str, Finding],
) -> ArmCard:
    """Build the card of a group; `card_findings` are those of the run of its first view."""
    has_attention = any(history.has_attention for history in views[0].histories)
    named_heads = (head for finding in card_findings.values() for head in finding.heads.values())
    return ArmCard(
        style,
        len(group.seeds),
        format_count(group.mean("parameters")),
        group_measures(group, metric, card_findings, has_attention),
        _views_like_first(views),
        f"{group.mean('steps'):g}",
        has_knock_out=any(head.without for head in named_heads),
    )


def group_measures(
    group: Group, metric: str, card_findings: Mapping[str, Finding], has_attention: bool
) -> list[Measure]:
    """Return a group's measures: the main metric, the numbers of the evidence, the test metrics.

    `card_findings` are the findings of one of the runs; they state which numbers to show, and how.
    """
    available_metrics = group.metrics
    main_measure = Measure(_metric_label(metric), interval_cell(group.over_seeds(metric)))
    evidence_measures = []
    for name, finding in card_findings.items():
        for label in finding.presentation.labels:
            key = f"{name}/{label.number}"
            if key in available_metrics:
                evidence_measures.append(Measure(label.text, interval_cell(group.over_seeds(key))))
            elif label.needs_attention and not has_attention:
                evidence_measures.append(Measure(label.text, TableCell("-"), "no attention"))
    return [main_measure, *evidence_measures, *_test_measures(group, metric)]


VECTOR_ENTRY = re.compile(r"(test/[^@]*\.[^@]*)\.(\d+)")
"""An entry of a gauge with several numbers, such as the load of each expert."""


def _test_measures(group: Group, main_metric: str) -> list[Measure]:
    """Return the test metrics of a group; of a gauge with several numbers, its two extremes.

    An expert of one seed is not that of another, so a mean of one entry would mean nothing.
    """
    measures: dict[str, Measure] = {}
    entries_by_gauge: dict[str, list[str]] = {}
    for key in group.metrics:
        entry = VECTOR_ENTRY.fullmatch(key)
        if entry:
            entries_by_gauge.setdefault(entry[1], []).append(key)
        elif key.startswith("test/") and key != main_metric:
            measures[key] = Measure(_metric_label(key), interval_cell(group.over_seeds(key)))
    for gauge, entries in entries_by_gauge.items():
        values_by_entry = [group.mean_by_seed(entry) for entry in entries]
        for name, extreme in (("largest", max), ("smallest", min)):
            values = [extreme(by_seed[seed] for by_seed in values_by_entry) for seed in group.seeds]
            measures[f"{gauge}.{name}"] = Measure(
                f"{_metric_label(gauge)}, {name} of {len(entries)}",
                interval_cell(estimate(values, group.bounds(entries[0]))),
            )
    return [measures[key] for key in sorted(measures)]


def draw_cards(cards: Sequence[ArmCard], columns: int = 2, max_numbers: int = 4) -> Any:
    """Draw the cards for print: the median seed's head at the last step, with numbers."""
    arms = []
    for card in cards:
        shown_seed = card.seed_views[0]
        lines = [
            f"{measure.name} {measure.value.to_text()}"
            for measure in card.measures
            if not measure.reason_missing
        ][:max_numbers]
        if any(measure.reason_missing for measure in card.measures):
            lines.append("no attention to cut")
        head_name = shown_seed.histories[0].head_name(shown_seed.head_index)
        lines += [f"shown: {head_name},", shown_seed.whose]
        head_views = [
            history.view(shown_seed.head_index, title=history.probe)
            for history in shown_seed.histories
        ]
        arms.append(
            attention_panels.ArmViews(f"{card.style.title} (n = {card.n})", lines, head_views)
        )
    return attention_panels.draw_arm_rows(arms, columns)


def _seed_view(
    run: FinishedRun, record: Record, run_findings: Mapping[str, Finding]
) -> SeedView | None:
    """Return the view of a run that opens at the head its evidence chose; None without patterns."""
    histories = probe_histories(
        _add_token_roles(load_patterns(record, probe=probe_names(record)[:PROBES]), run)
    )
    if not histories:
        return None
    opening_head = _opening_head(run_findings)
    chosen_index = histories[0].index_of_head(opening_head.head if opening_head else None)
    is_chosen = chosen_index is not None
    head_index = chosen_index if is_chosen else histories[0].first_head_of_last_layer
    return SeedView(run.name, run.result.seed, histories, head_index, is_chosen)


def _opening_head(run_findings: Mapping[str, Finding]) -> NamedHead | None:
    """Return the head that the evidence of a run opens a picture at."""
    return next(
        (
            finding.heads[name]
            for finding in run_findings.values()
            for name in finding.presentation.opens_at
            if name in finding.heads
        ),
        None,
    )


def _add_token_roles(patterns: Sequence[Pattern], run: FinishedRun) -> list[Pattern]:
    """Return the patterns with the dataset's token roles, which attnlab 0.1 did not record."""
    if any(pattern.roles for pattern in patterns):
        return list(patterns)
    run_dataset_class = dataset_class(run.result.identity)
    if run_dataset_class is None:
        return list(patterns)
    return [
        replace(pattern, roles=run_dataset_class.token_roles(pattern.tokens))
        for pattern in patterns
    ]


def _views_like_first(views: Sequence[SeedView]) -> list[SeedView]:
    """Return the seeds with the sequences and heads of the first seed, which share its card."""

    def sequences_and_heads(view: SeedView) -> Any:
        return [
            (history.probe, list(history.tokens), history.answer_position, history.heads)
            for history in view.histories
        ]

    first_content = sequences_and_heads(views[0])
    return [view for view in views if sequences_and_heads(view) == first_content]


def _metric_label(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ")
