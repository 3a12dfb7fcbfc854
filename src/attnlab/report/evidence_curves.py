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
from attnlab.run_record.patterns import Pattern, load_patterns, probes
from attnlab.run_record.record import Record


@dataclass(frozen=True)
class Numbers:
    """The numbers of a curve that all runs of a group have."""

    evidence: str
    curve: Curve
    keys: Sequence[tuple[int, str]]
    """The length of each point, and its metric."""


def evidence_curves(
    panel: Panel, width: int | str = "container", *, legend: bool = True
) -> dict[str, Any]:
    """Draw each curve that the evidence of a panel's runs states, and return charts by name."""
    arms: dict[str, list[ArmCurve]] = {}
    curves_by_name: dict[str, Curve] = {}
    bounds: dict[str, Bounds] = {}
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        for name, numbers in _curve_numbers(group, read_findings(group.runs[0].result)).items():
            curves_by_name[name] = numbers.curve
            bounds[name] = group.bounds(numbers.keys[0][1])
            points = [
                CurvePoint(length, over_seeds.n, over_seeds.mean, over_seeds.low, over_seeds.high)
                for length, key in numbers.keys
                if (over_seeds := group.over_seeds(key)).mean is not None
            ]
            if points:
                arms.setdefault(name, []).append(
                    ArmCurve(style.title, style.colour, points, style.dash)
                )
    return {
        name: draw_curves(
            of_arms,
            curves_by_name[name].title,
            describe_curves(of_arms, bounds[name], "length", legend=legend),
            x=XAxis(curves_by_name[name].axis, doubling=True),
            width=width,
            legend=legend,
        )
        for name, of_arms in arms.items()
    }


def reach_chart(panel: Panel, records: Mapping[str, Record]) -> Any:
    """Draw how far back the heads of each group's first seed attend; None where nothing is drawn.

    Only groups are drawn that have attention, and whose evidence measured the loss under a limited
    reach (`Presentation.reach`), which the caption states.
    """
    models = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        run = group.runs[0]
        run_findings = read_findings(run.result)
        curve_numbers = _curve_numbers(group, run_findings)
        reaches = [finding.presentation.reach for finding in run_findings.values()]
        numbers = next((curve_numbers[name] for name in reaches if name in curve_numbers), None)
        if numbers is None or not numbers.keys:
            continue
        shares = _shares_by_distance(_last_attention(records[run.name]))
        if shares is not None:
            caption = [
                f"loss where a head sees {length} token{'s' if length > 1 else ''}: "
                f"{interval_cell(group.over_seeds(key)).to_text()}"
                for length, key in numbers.keys[::-2]
            ]
            title = f"{style.title} (heads of seed {run.result.seed}, n = {len(group.seeds)})"
            models.append(ReachPanel(title, caption, *shares))
    return draw_reach(models) if models else None


def _curve_numbers(group: Group, run_findings: Mapping[str, Finding]) -> dict[str, Numbers]:
    """Return the metrics of each curve that all runs have, by the name of the curve.

    A curve may end in the last point of another curve, where the bounded quantity is unbounded.
    """
    numbers_by_curve: dict[str, Numbers] = {}
    for evidence, finding in run_findings.items():
        for curve in finding.presentation.curves:
            prefix = f"{evidence}/{curve.prefix}"
            lengths = sorted(
                int(metric.removeprefix(prefix))
                for metric in group.metrics
                if metric.startswith(prefix) and metric.removeprefix(prefix).isdecimal()
            )
            keys = [(length, f"{prefix}{length}") for length in lengths]
            if keys and curve.ends_with in numbers_by_curve:
                keys.append(numbers_by_curve[curve.ends_with].keys[-1])
            if keys:
                numbers_by_curve[curve.name] = Numbers(evidence, curve, keys)
    return numbers_by_curve


def _last_attention(record: Record) -> list[Pattern]:
    """Return the attention of the last step on all probes from the validation split."""
    names = [name for name in probes(record) if name.startswith("validation-")]
    patterns = load_patterns(record, probe=names)
    last = max((pattern.step for pattern in patterns), default=0)
    return [p for p in patterns if p.step == last and p.attention is not None]


def _shares_by_distance(
    patterns: Sequence[Pattern],
) -> tuple[list[str], list[str], np.ndarray] | None:
    """Compute the share of each head's attention at each distance, for the longest sequences.

    Returns the names of the heads, the labels of the distances, and the shares (head, distance).
    """
    if not patterns:
        return None
    length = max(len(pattern.tokens) for pattern in patterns)
    starts = [0, 1, 2, *(2**n + 1 for n in range(1, length.bit_length()) if 2**n + 1 < length)]
    bins = list(zip(starts, [*starts[1:], length], strict=True))
    shares_by_layer: dict[Layer, list[np.ndarray]] = {}
    for pattern in (p for p in patterns if len(p.tokens) == length):
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
