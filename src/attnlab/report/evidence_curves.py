"""What evidence found along a scale, as figures: the numbers of its curves over their lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.findings import findings
from attnlab.analysis.table import with_interval
from attnlab.figures.curves import Point, curves
from attnlab.figures.reach import Heads, reach
from attnlab.report.arm_cards import arm_styles
from attnlab.run_record.finding import Curve, Finding
from attnlab.run_record.layers import Layer
from attnlab.run_record.patterns import Pattern, probes, recorded
from attnlab.run_record.record import Record


@dataclass(frozen=True)
class Numbers:
    """The numbers of a curve that all runs of a group have."""

    evidence: str
    curve: Curve
    keys: Sequence[tuple[int, str]]
    """The length of each, and its metric."""


def evidence_curves(panel: Panel, width: int | str = "container") -> dict[str, Any]:
    """Draw each curve that the evidence of a panel's runs states, by its name."""
    styles, charts = arm_styles(panel), {}
    palette = {style.name: style.colour for style in styles}
    points: dict[str, list[Point]] = {}
    stated: dict[str, Curve] = {}
    for group, style in zip(panel.groups, styles, strict=True):
        for name, numbers in _numbers(group, findings(group.runs[0].result)).items():
            stated[name] = numbers.curve
            for length, key in numbers.keys:
                n, mean, low, high = group.over_seeds(key)
                if mean is not None:
                    bounds = (mean if low is None else low, mean if high is None else high)
                    point = Point(group.label, style.name, style.depth, n, length, mean, *bounds)
                    points.setdefault(name, []).append(point)
    for name, curve in stated.items():
        if name in points:
            charts[name] = curves(points[name], curve.title, palette, width, doubling=curve.axis)
    return charts


def reach_chart(panel: Panel, records: Mapping[str, Record]) -> Any:
    """Draw how far back the heads of each group's first seed look.

    A picture is not shown without what is left when the heads reach less: of groups whose evidence
    measured that (`Presentation.reach`), and have attention. None where there is none.
    """
    models = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        run = group.runs[0]
        found = findings(run.result)
        by_name = _numbers(group, found)
        wanted = [finding.presentation.reach for finding in found.values()]
        bounded = next((by_name[name] for name in wanted if name in by_name), None)
        shares = _shares(_last(records[run.name])) if bounded and bounded.keys else None
        if bounded and shares is not None:
            caption = [
                f"loss where a head sees {length} token{'s' if length > 1 else ''}: "
                f"{with_interval(group.over_seeds(key)).joined()}"
                for length, key in bounded.keys[::-2]
            ]
            title = f"{style.title} (heads of seed {run.result.seed}, n = {len(group.seeds)})"
            models.append(Heads(title, caption, *shares))
    return reach(models) if models else None


def _numbers(group: Group, found: Mapping[str, Finding]) -> dict[str, Numbers]:
    """Find the metrics of each curve that all runs have, by their lengths.

    A curve may end in the last point of another, where what it bounds is not bounded.
    """
    numbers: dict[str, Numbers] = {}
    for evidence, finding in found.items():
        for curve in finding.presentation.curves:
            prefix = f"{evidence}/{curve.prefix}"
            lengths = sorted(
                int(metric.removeprefix(prefix))
                for metric in group.metrics
                if metric.startswith(prefix) and metric.removeprefix(prefix).isdecimal()
            )
            keys = [(length, f"{prefix}{length}") for length in lengths]
            if keys and curve.ends_with in numbers:
                keys.append(numbers[curve.ends_with].keys[-1])
            if keys:
                numbers[curve.name] = Numbers(evidence, curve, keys)
    return numbers


def _last(record: Record) -> list[Pattern]:
    """Return the attention of the last step on every probe that is a part of validation."""
    names = [name for name in probes(record) if name.startswith("validation-")]
    patterns = recorded(record, probe=names)
    last = max((pattern.step for pattern in patterns), default=0)
    return [p for p in patterns if p.step == last and p.attention is not None]


def _shares(patterns: Sequence[Pattern]) -> tuple[list[str], list[str], np.ndarray] | None:
    """Sum the attention at each distance, over the queries with most of the text behind them."""
    if not patterns:
        return None
    length = max(len(pattern.tokens) for pattern in patterns)
    edges = [0, 1, 2, *(2**n + 1 for n in range(1, length.bit_length()) if 2**n + 1 < length)]
    bounds = list(zip(edges, [*edges[1:], length], strict=True))
    by_layer: dict[Layer, list[np.ndarray]] = {}
    for pattern in (p for p in patterns if len(p.tokens) == length):
        query = np.array(pattern.query_at)
        late = query >= length // 2
        back = query[late][:, None] - np.arange(length)
        weights = pattern.weights[:, late]
        rows = [
            (weights * ((low <= back) & (back < high))).sum(-1).mean(-1) for low, high in bounds
        ]
        assert pattern.layer is not None
        by_layer.setdefault(pattern.layer, []).append(np.stack(rows, axis=1))
    names = [
        f"{layer.name}, head {head}"
        for layer, shares in by_layer.items()
        for head in range(len(shares[0]))
    ]
    shares = np.concatenate([np.mean(of_probes, axis=0) for of_probes in by_layer.values()])
    distances = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in bounds]
    return names, distances, shares / shares.sum(axis=1, keepdims=True)
