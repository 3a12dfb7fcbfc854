"""Figures of the curves that evidence states: metrics over a scale of lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.findings import read_findings
from attnlab.analysis.table import interval_cell
from attnlab.figures.curves import ArmCurve, CurvePoint, XAxis, draw_curves
from attnlab.figures.reach import ReachPanel, draw_reach
from attnlab.layers import Layer
from attnlab.report.arm_styles import arm_styles
from attnlab.report.learning_curves import describe_curves
from attnlab.run_record.bounds import Bounds
from attnlab.run_record.finding import Curve, Finding
from attnlab.run_record.pattern_table import Pattern, load_patterns, probe_names
from attnlab.run_record.record import Record


@dataclass(frozen=True)
class CurveMetrics:
    """The numbers of a curve that all runs of a group have."""

    evidence: str
    curve: Curve
    points: Sequence[tuple[int, str]]
    """The length of each point, and its metric."""


def evidence_curves(
    panel: Panel, width: int | str = "container", *, legend: bool = True
) -> dict[str, Any]:
    """Draw each curve that the evidence of a panel's runs states, and return charts by name."""
    arm_curves_by_name: dict[str, list[ArmCurve]] = {}
    curve_by_name: dict[str, Curve] = {}
    bounds_by_name: dict[str, Bounds] = {}
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        curve_metrics = _group_curve_metrics(group, read_findings(group.runs[0].result))
        for name, metrics in curve_metrics.items():
            _, first_metric = metrics.points[0]
            curve_by_name[name] = metrics.curve
            bounds_by_name[name] = group.bounds(first_metric)
            points = _curve_points(group, metrics)
            if points:
                arm_curve = ArmCurve(
                    style.title, style.colour, points, style.dash, seeds=group.seeds
                )
                arm_curves_by_name.setdefault(name, []).append(arm_curve)
    return {
        name: draw_curves(
            arm_curves,
            curve_by_name[name].title,
            describe_curves(arm_curves, bounds_by_name[name], "length", legend=legend),
            x=XAxis(curve_by_name[name].axis, doubling=True),
            width=width,
            legend=legend,
        )
        for name, arm_curves in arm_curves_by_name.items()
    }


def _curve_points(group: Group, metrics: CurveMetrics) -> list[CurvePoint]:
    """Return the points of a group's curve at which its metric has a mean."""
    points = []
    for length, metric in metrics.points:
        n, mean, low, high = group.over_seeds(metric)
        if mean is not None:
            points.append(CurvePoint(length, n, mean, low, high))
    return points


def reach_chart(panel: Panel, records: Mapping[str, Record]) -> Any:
    """Draw how far back the heads of each group's median seed attend; None where nothing is drawn.

    Only groups are drawn that have attention, and whose evidence measured the loss under a limited
    reach (`Presentation.reach`), which the caption states.
    """
    reach_panels = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        shown_run = group.median_run(lambda run: run.value(panel.metric), panel.higher_is_better)
        run_findings = read_findings(shown_run.result)
        curve_metrics = _group_curve_metrics(group, run_findings)
        reach_names = [finding.presentation.reach for finding in run_findings.values()]
        metrics = next((curve_metrics[name] for name in reach_names if name in curve_metrics), None)
        if metrics is None or not metrics.points:
            continue
        shares = _shares_by_distance(_load_last_attention(records[shown_run.name]))
        if shares is not None:
            caption = [
                f"loss where a head sees {length} token{'s' if length > 1 else ''}: "
                f"{interval_cell(group.over_seeds(metric)).to_text()}"
                for length, metric in metrics.points[::-2]
            ]
            seed = f"seed {shown_run.result.seed}"
            median = ", the median" if len(group.seeds) > 1 else ""
            title = f"{style.title} (heads of {seed}{median}; n = {len(group.seeds)})"
            reach_panels.append(ReachPanel(title, caption, *shares))
    return draw_reach(reach_panels) if reach_panels else None


def _group_curve_metrics(
    group: Group, run_findings: Mapping[str, Finding]
) -> dict[str, CurveMetrics]:
    """Return the metrics of each curve that all runs have, by the name of the curve.

    A curve may end in the last point of another curve, where the bounded quantity is unbounded.
    """
    metrics_by_curve: dict[str, CurveMetrics] = {}
    for evidence, finding in run_findings.items():
        for curve in finding.presentation.curves:
            prefix = f"{evidence}/{curve.prefix}"
            lengths = sorted(
                int(metric.removeprefix(prefix))
                for metric in group.metrics
                if metric.startswith(prefix) and metric.removeprefix(prefix).isdecimal()
            )
            points = [(length, f"{prefix}{length}") for length in lengths]
            if points and curve.ends_with in metrics_by_curve:
                points.append(metrics_by_curve[curve.ends_with].points[-1])
            if points:
                metrics_by_curve[curve.name] = CurveMetrics(evidence, curve, points)
    return metrics_by_curve


def _load_last_attention(record: Record) -> list[Pattern]:
    """Return the attention of the last step on all probes from the validation split."""
    validation_probes = [name for name in probe_names(record) if name.startswith("validation-")]
    patterns = load_patterns(record, probe=validation_probes)
    last_step = max((pattern.step for pattern in patterns), default=0)
    return [
        pattern
        for pattern in patterns
        if pattern.step == last_step and pattern.attention is not None
    ]


def _shares_by_distance(
    patterns: Sequence[Pattern],
) -> tuple[list[str], list[str], np.ndarray] | None:
    """Compute the share of each head's attention at each distance, for the longest sequences.

    Returns the names of the heads, the labels of the distances, and the shares (head, distance).
    """
    if not patterns:
        return None
    length = max(len(pattern.tokens) for pattern in patterns)
    bin_starts = [0, 1, 2, *(2**n + 1 for n in range(1, length.bit_length()) if 2**n + 1 < length)]
    bins = list(zip(bin_starts, [*bin_starts[1:], length], strict=True))
    shares_by_layer: dict[Layer, list[np.ndarray]] = {}
    for pattern in (
        probe_pattern for probe_pattern in patterns if len(probe_pattern.tokens) == length
    ):
        assert pattern.layer is not None
        shares_by_layer.setdefault(pattern.layer, []).append(_attention_in_bins(pattern, bins))
    head_names = [
        f"{layer.name}, head {head}"
        for layer, probe_shares in shares_by_layer.items()
        for head in range(len(probe_shares[0]))
    ]
    shares = np.concatenate(
        [np.mean(layer_shares, axis=0) for layer_shares in shares_by_layer.values()]
    )
    distances = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in bins]
    return head_names, distances, shares / shares.sum(axis=1, keepdims=True)


def _attention_in_bins(pattern: Pattern, bins: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the attention (head, bin) in bins of distances, mean over the queries.

    Only the queries in the second half of the sequence count, which have most of it behind them.
    """
    length = len(pattern.tokens)
    query_positions = np.array(pattern.query_at)
    is_late = query_positions >= length // 2
    distance = query_positions[is_late][:, None] - np.arange(length)
    weights = pattern.weights[:, is_late]
    attention = [
        (weights * ((low <= distance) & (distance < high))).sum(-1).mean(-1) for low, high in bins
    ]
    return np.stack(attention, axis=1)
