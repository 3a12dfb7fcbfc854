"""What a text's runs say of their context, as figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attnlab.figures.curves import Point, curves
from attnlab.figures.reach import Heads, reach
from attnlab.runs.compare import Group, Panel
from attnlab.runs.patterns import Pattern, probes, recorded
from attnlab.runs.record import Record
from attnlab.runs.table import with_interval
from attnlab.ui.cards import looks

SEEN, WITHIN = "seen", "within"
PREFIXES = {SEEN: "context/loss_", WITHIN: "context/within_"}
TITLES = {
    SEEN: ("loss (nats) by how much of the text was seen", "tokens seen, at most"),
    WITHIN: ("loss (nats) where attention reaches no further", "tokens that each head sees"),
}


def context_curves(panel: Panel, width: int | str = "container") -> dict[str, Any]:
    """Draw the loss by the tokens `seen`, and by the tokens `within` which heads may look."""
    named, charts = looks(panel), {}
    palette = {look.name: look.colour for look in named}
    for family, (title, axis) in TITLES.items():
        points = []
        for group, look in zip(panel.groups, named, strict=True):
            for length, key in _keys(group, family):
                n, mean, low, high = group.over_seeds(key)
                if mean is not None:
                    bounds = (mean if low is None else low, mean if high is None else high)
                    points.append(
                        Point(group.label, look.name, look.depth, n, length, mean, *bounds)
                    )
        if points:
            charts[family] = curves(points, title, palette, width, doubling=axis)
    return charts


def reach_chart(panel: Panel, records: Mapping[str, Record]) -> Any:
    """Draw how far back the heads of each group's first seed look; None without attention."""
    models = []
    for group, look in zip(panel.groups, looks(panel), strict=True):
        run = group.runs[0]
        # A picture is not shown without what is left when the heads reach less.
        shown = _shares(_last(records[run.name])) if _keys(group, WITHIN) else None
        if shown is not None:
            caption = [
                f"loss where a head sees {length} token{'s' if length > 1 else ''}: "
                f"{with_interval(group.over_seeds(key)).joined()}"
                for length, key in _keys(group, WITHIN)[::-2]
            ]
            title = f"{look.title} (heads of seed {run.result['seed']}, n = {len(group.seeds)})"
            models.append(Heads(title, caption, *shown))
    return reach(models) if models else None


def _keys(group: Group, family: str) -> list[tuple[int, str]]:
    """Find the metrics of a family that all runs have, by their length.

    A head that sees all that there is is not bounded.
    """
    lengths = {
        of: sorted(int(m.rpartition("_")[2]) for m in group.metrics if m.startswith(prefix))
        for of, prefix in PREFIXES.items()
    }
    keys = [(length, f"{PREFIXES[family]}{length}") for length in lengths[family]]
    if family == WITHIN and keys:
        keys.append((lengths[SEEN][-1], f"{PREFIXES[SEEN]}{lengths[SEEN][-1]}"))
    return keys


def _last(record: Record) -> list[Pattern]:
    """Give the attention of the last step on every probe that is a part of validation."""
    names = [name for name in probes(record) if name.startswith("validation-")]
    kept = [pattern for name in names for pattern in recorded(record, probe=name)]
    last = max((pattern.step for pattern in kept), default=0)
    return [p for p in kept if p.step == last and p.is_attention]


def _shares(patterns: Sequence[Pattern]) -> tuple[list[str], list[str], np.ndarray] | None:
    """Sum the attention at each distance, over the queries with most of the text behind them."""
    if not patterns:
        return None
    length = max(len(pattern.tokens) for pattern in patterns)
    edges = [0, 1, 2, *(2**n + 1 for n in range(1, length.bit_length()) if 2**n + 1 < length)]
    bounds = list(zip(edges, [*edges[1:], length], strict=True))
    by_source: dict[str, list[np.ndarray]] = {}
    for pattern in (p for p in patterns if len(p.tokens) == length):
        query = np.array(pattern.query_at)
        late = query >= length // 2
        back = query[late][:, None] - np.arange(length)
        weights = pattern.weights[:, late]
        rows = [
            (weights * ((low <= back) & (back < high))).sum(-1).mean(-1) for low, high in bounds
        ]
        by_source.setdefault(pattern.source, []).append(np.stack(rows, axis=1))
    names = [
        f"layer {layer}, head {head}"
        for layer, found in enumerate(by_source.values())
        for head in range(len(found[0]))
    ]
    shares = np.concatenate([np.mean(found, axis=0) for found in by_source.values()])
    distances = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in bounds]
    return names, distances, shares / shares.sum(axis=1, keepdims=True)
