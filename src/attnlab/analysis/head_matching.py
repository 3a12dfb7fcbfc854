"""Which head of one seed is which of another, so that a mean over seeds is of one head.

found = matched([Record(path) for path in sorted(Path("runs").glob("mqar-multihead-2x64-s*"))])
found.layers[0].measures["previous"][1].mean  # layer 0, head 1 of the reference

Heads of a layer are exchangeable, layers are not (Elhage et al. 2021), so heads are matched within
their layer, by where they look on the same probes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from attnlab.analysis.statistics import Interval, interval
from attnlab.interp.pattern_stats import between_heads
from attnlab.layers import AttentionLayer
from attnlab.run_record.head_scores import Course, Scores, head_scores
from attnlab.run_record.patterns import TABLE, Pattern, recorded
from attnlab.run_record.record import Record


@dataclass(frozen=True, eq=False)
class MatchedLayer:
    """The matched heads of a layer; they have the numbers of the reference."""

    layer: AttentionLayer
    heads: Int[np.ndarray, "seed head"]
    """Which head of each seed it is."""
    apart: Float[np.ndarray, " head"]
    """Its distance (`distances`) to the reference's, mean over the other seeds."""
    chance: float
    """The mean distance of all pairs, which a random matching has on average."""
    measures: Mapping[str, Sequence[Interval]]
    """{measure: over seeds, for each head} (`attnlab.interp.pattern_stats.measure`)."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Runs of several seeds whose heads were matched."""

    reference: int
    """The run that others are matched to, counted from 0."""
    step: int
    """Of the patterns: the last that all runs recorded."""
    measured: int
    """Of the measures: the last at which all runs measured."""
    layers: Sequence[MatchedLayer]
    """In the order of the model."""


def distances(one: Sequence[Pattern], other: Sequence[Pattern]) -> Float[Tensor, "head other"]:
    """Give the distance of every two heads of a layer in two runs, 0 to 1.

    The Jensen-Shannon distance of a row (`attnlab.interp.pattern_stats`), mean over all queries of
    the probes that have the same name and tokens in both; others are ignored. Equal patterns have
    0; the record's rounding moves a distance by .01 or less in most rows. Raises ValueError where
    no probe is the same.
    """
    theirs = {_about(pattern): pattern for pattern in other}
    pairs = [(mine, theirs[about]) for mine in one if (about := _about(mine)) in theirs]
    if not pairs:
        raise ValueError(
            "no probe has the same tokens in both runs; heads are matched by where they look on "
            "the same sequences"
        )
    total = torch.zeros(len(pairs[0][0].weights), len(pairs[0][1].weights), dtype=torch.float64)
    queries = 0
    for mine, its in pairs:
        apart = (between_heads(_rows(mine), _rows(its)) / math.log(2)).sqrt()
        total += reduce(apart.double(), "1 head other query -> head other", "sum")
        queries += apart.shape[-1]
    return (total / queries).float()


def match(cost: Float[Tensor, "head head"]) -> Int[np.ndarray, " head"]:
    """Pair the rows of a cost with its columns at the least sum (Kuhn 1955): the column of each."""
    return linear_sum_assignment(cost.numpy())[1]


def matched(records: Sequence[Record]) -> Matched:
    """Match the heads of runs that differ in their seed alone, then average each over the seeds.

    The reference is the run from which the matched heads of the others are least apart, over all
    layers (the medoid; the first of equals), and every other run is matched to it. A match is the
    best of all, so even of heads that have nothing in common it is less apart than chance. Raises
    ValueError for fewer than two runs, and where patterns or measures cannot be compared.
    """
    if len(records) < 2:
        raise ValueError(f"{len(records)} run has nothing to be matched with; give two or more")
    scores = [head_scores(record) for record in records]
    layers = list(scores[0])
    for record, found in zip(records, scores, strict=True):
        if not found:
            raise ValueError(f"{record.name} has no measures of heads")
        if [layer.path for layer in found] != [layer.path for layer in layers]:
            raise ValueError(
                f"{record.name} has the layers {_paths(found)}, but {records[0].name} "
                f"{_paths(layers)}; heads are matched within a layer"
            )
    # A layer of another run is the one of the same path; it may have other heads.
    scores = [dict(zip(layers, found.values(), strict=True)) for found in scores]
    step = _last("recorded patterns", [_pattern_steps(record) for record in records])
    measured = _last(
        "measured heads",
        [[s for steps, _ in found[layers[0]].values() for s in steps.tolist()] for found in scores],
    )
    shown = [_by_layer(record, step, layers) for record in records]
    costs = {layer: _costs(records, scores, shown, layer) for layer in layers}
    everyone = range(len(records))
    summed = [
        sum(_least(costs[layer][run, other]) for layer in layers for other in everyone)
        for run in everyone
    ]
    reference = summed.index(min(summed))
    return Matched(
        reference,
        step,
        measured,
        [
            _layer(
                layer,
                [costs[layer][reference, other] for other in everyone],
                [found[layer] for found in scores],
                reference,
                measured,
            )
            for layer in layers
        ],
    )


Measures = Mapping[str, Course]


def _paths(layers: Iterable[AttentionLayer]) -> str:
    return ", ".join(layer.path for layer in layers)


def _layer(
    layer: AttentionLayer,
    costs: Sequence[Float[Tensor, "head head"]],
    scores: Sequence[Measures],
    reference: int,
    measured: int,
) -> MatchedLayer:
    own = np.arange(len(costs[reference]))
    # Of equal heads, the reference's own could be matched to one another.
    heads = np.stack([own if at == reference else match(c) for at, c in enumerate(costs)])
    others = [at for at in range(len(costs)) if at != reference]
    apart = np.stack([costs[at].numpy()[own, heads[at]] for at in others]).mean(axis=0)
    chance = float(np.mean([costs[at].numpy().mean() for at in others]))
    measures = {}
    for name in scores[0]:
        if not all(name in found for found in scores):
            continue
        values = np.stack(
            [_at(found[name], measured)[order] for found, order in zip(scores, heads, strict=True)]
        )
        measures[name] = [interval(values[:, head].tolist()) for head in own]
    return MatchedLayer(layer, heads, apart, chance, measures)


def _at(course: Course, step: int) -> Float[np.ndarray, " head"]:
    return course.values[course.steps.tolist().index(step)]


def _costs(
    records: Sequence[Record],
    scores: Sequence[Scores],
    shown: Sequence[Mapping[AttentionLayer, list[Pattern]]],
    layer: AttentionLayer,
) -> dict[tuple[int, int], Float[Tensor, "head head"]]:
    """Compare a layer of every two runs, and of each with itself."""
    for record, found, patterns in zip(records, scores, shown, strict=True):
        _, values = next(iter(found[layer].values()))
        there = {len(pattern.weights) for pattern in patterns.get(layer, [])}
        if there != {values.shape[1]}:
            raise ValueError(
                f"{record.name} recorded patterns of {max(there, default=0)} of the "
                f"{values.shape[1]} heads of {layer.path}; to match them, record all: "
                "callbacks.recorder.layers=null callbacks.recorder.heads=null"
            )
    costs = {}
    for one in range(len(records)):
        for other in range(one + 1):
            costs[one, other] = distances(shown[one][layer], shown[other][layer])
            costs[other, one] = rearrange(costs[one, other], "head other -> other head")
    if len({len(cost) for cost in costs.values()}) > 1:
        raise ValueError(
            f"the runs have unequal numbers of heads in {layer.path}; none can be matched"
        )
    return costs


def _least(cost: Float[Tensor, "head head"]) -> float:
    """Give the mean distance of the best matching."""
    return float(cost[torch.arange(len(cost)), torch.from_numpy(match(cost))].mean())


def _about(pattern: Pattern) -> tuple[Any, ...]:
    """Say what a pattern was recorded of."""
    return (
        *(pattern.probe, tuple(pattern.tokens), tuple(pattern.query_at)),
        tuple(pattern.reading or ()),
    )


def _rows(pattern: Pattern) -> Float[Tensor, "1 head query key"]:
    """Give the weights as rows that sum to 1 again; the record rounds each."""
    weights = torch.tensor(pattern.weights)
    total = reduce(weights, "head query key -> head query 1", "sum")
    return rearrange(weights / total.where(total > 0, 1), "h q k -> 1 h q k")


def _by_layer(
    record: Record, step: int, layers: Sequence[AttentionLayer]
) -> dict[AttentionLayer, list[Pattern]]:
    patterns = [p for p in recorded(record, step) if p.attention is not None]
    return {
        layer: [p for p in patterns if p.attention and p.attention.path == layer.path]
        for layer in layers
    }


def _pattern_steps(record: Record) -> list[int]:
    steps = record.rows(TABLE)["step"].unique().to_pylist()
    if not steps:
        raise ValueError(
            f"{record.name} recorded no patterns; heads are matched by them, so train it with "
            "callbacks=default, whose `recorder` keeps them"
        )
    return steps


def _last(what: str, steps: Sequence[Iterable[int]]) -> int:
    common = set.intersection(*map(set, steps))
    if not common:
        raise ValueError(
            f"there is no step at which all runs {what}; train them with the same clock"
        )
    return max(common)
