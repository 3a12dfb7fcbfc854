"""What each factor of a sweep did to a metric: how much of its variance, and at which value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from attnlab.analysis.arms import format_value, short_label
from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.statistics import Interval


class FactorShare(NamedTuple):
    """How much of the variance of a metric over runs goes with one factor."""

    factor: str
    share: float
    """Its sum of squares, divided by the total one (eta squared)."""


@dataclass(frozen=True)
class Importance:
    """The variance of a metric over the runs of a panel, divided among its factors."""

    shares: Sequence[FactorShare]
    """One for each factor, the largest first."""
    interactions: float | None
    """The share of the arms beyond the sum of the factors; None where the grid is not balanced."""
    seeds: float
    """The share within the arms: what the seed changed."""
    num_runs: int


class FactorLine(NamedTuple):
    """A metric over the values of one numeric key, while the other keys stay as they are."""

    title: str
    groups: Sequence[tuple[float, Group]]
    """The value of the key and the group, in ascending order."""
    best: Interval
    """The interval of its best group."""


def importance(panel: Panel) -> Importance | None:
    """Return how the variance of the main metric divides among the keys in which groups differ.

    Each share is a sum of squares between the means at the values of one key, divided by the total
    over all runs (one-way analysis of variance, Fisher 1925). On a grid where each combination has
    equally many runs, the shares of factors, interactions and seeds sum to 1; elsewhere shares may
    overlap. None where fewer than two keys vary, or the metric is the same everywhere.
    """
    keys = varying_keys(panel)
    rows = [
        (group, value)
        for group in panel.groups
        for run in group.runs
        if (value := run.value(panel.metric)) is not None
    ]
    total = _squares([value for _, value in rows])
    if len(keys) < 2 or total == 0:
        return None
    shares = []
    for key in keys:
        values_by_level: dict[str, list[float]] = {}
        for group, value in rows:
            values_by_level.setdefault(format_value(group.keys[key]), []).append(value)
        shares.append(FactorShare(key, _between(list(values_by_level.values())) / total))
    values_by_group = [[value for other, value in rows if other is group] for group in panel.groups]
    arms_share = _between(values_by_group) / total
    interactions = None
    if _is_balanced(panel, keys, values_by_group):
        interactions = max(0.0, arms_share - sum(share.share for share in shares))
    return Importance(
        sorted(shares, key=lambda share: -share.share),
        interactions,
        max(0.0, 1 - arms_share),
        len(rows),
    )


def numeric_keys(panel: Panel) -> list[str]:
    """Return the keys with two or more different numbers among a panel's groups."""
    return [
        key
        for key in varying_keys(panel)
        if len({group.keys[key] for group in panel.groups if _is_number(group.keys[key])}) > 1
    ]


def factor_lines(panel: Panel, key: str) -> list[FactorLine]:
    """Return the groups by what they are beside a numeric key, the best line first."""
    other_keys = [other for other in varying_keys(panel) if other != key]
    groups_by_title: dict[str, list[tuple[float, Group]]] = {}
    for group in panel.groups:
        if not _is_number(group.keys[key]):
            continue
        title = short_label({other: group.keys[other] for other in other_keys})
        groups_by_title.setdefault(title or "all", []).append((float(group.keys[key]), group))
    sign = -1 if panel.higher_is_better else 1
    lines = []
    for title, groups in groups_by_title.items():
        intervals = [group.over_seeds(panel.metric) for _, group in groups]
        best = min(
            (interval for interval in intervals if interval.mean is not None),
            key=lambda interval: sign * (interval.mean or 0.0),
            default=None,
        )
        if best is not None:
            lines.append(FactorLine(title, sorted(groups, key=lambda pair: pair[0]), best))
    return sorted(lines, key=lambda line: sign * (line.best.mean or 0.0))


def varying_keys(panel: Panel) -> list[str]:
    """Return the keys whose values differ between the groups of a panel."""
    return [
        key
        for key in panel.group_keys
        if len({format_value(group.keys[key]) for group in panel.groups}) > 1
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_balanced(
    panel: Panel, keys: Sequence[str], values_by_group: Sequence[Sequence[float]]
) -> bool:
    """Return whether each combination of the keys' values has a group, and equally many runs."""
    num_cells = 1
    for key in keys:
        num_cells *= len({format_value(group.keys[key]) for group in panel.groups})
    return num_cells == len(panel.groups) and len({len(v) for v in values_by_group}) == 1


def _squares(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)


def _between(parts: Sequence[Sequence[float]]) -> float:
    """Return the sum of squares between the means of some parts."""
    parts = [part for part in parts if part]
    values = [value for part in parts for value in part]
    mean = sum(values) / len(values)
    return sum(len(part) * (sum(part) / len(part) - mean) ** 2 for part in parts)


def parallel_axes(panel: Panel, costs: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return an axis for each varying key, the main metric and costs, with each group's value.

    An axis has a `title`, the `values` of the groups, and, where these are no numbers, its `levels`
    in order.
    """
    axes = [_key_axis(panel, key) for key in varying_keys(panel)]
    for cost, title in costs.items():
        values = [group.mean(cost) for group in panel.groups if _measured(group, cost)]
        if len(values) == len(panel.groups) and len(set(values)) > 1:
            axes.append({"title": title, "values": values})
    means = [group.over_seeds(panel.metric).mean for group in panel.groups]
    return [*axes, {"title": panel.metric, "values": means}]


def _measured(group: Group, cost: str) -> bool:
    return all(getattr(run.result, cost) is not None for run in group.runs)


def _key_axis(panel: Panel, key: str) -> dict[str, Any]:
    values = [group.keys[key] for group in panel.groups]
    if all(_is_number(value) for value in values) and len(set(values)) > MOST_LEVELS:
        return {"title": key, "values": values}
    texts = [format_value(value) for value in values]
    if all(_is_number(value) for value in values):
        levels = [format_value(value) for value in sorted(set(values))]
    else:
        levels = list(dict.fromkeys(texts))
    return {"title": key, "values": [levels.index(text) for text in texts], "levels": levels}


MOST_LEVELS = 8
"""The number of different numbers of a key up to which each has its own place on an axis."""
