"""Match the heads of one seed to those of another, so that a mean over seeds is of the same head.

heads = matched([Record(path) for path in sorted(Path("runs").glob("mqar-multihead-2x64-s*"))])
heads.layers[0].measures["previous"][1].mean  # layer 0, head 1 of the reference

Heads of a layer are exchangeable, layers are not (Elhage et al. 2021), so heads are matched within
their layer, by their patterns on the same probes.
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
from attnlab.run_record.head_scores import MeasureHistory, Scores, load_head_scores
from attnlab.run_record.pattern_table import TABLE, Pattern, load_patterns
from attnlab.run_record.record import Record


@dataclass(frozen=True, eq=False)
class MatchedLayer:
    """The matched heads of a layer, numbered as in the reference."""

    layer: AttentionLayer
    heads: Int[np.ndarray, "seed head"]
    """The number of the head in each seed."""
    apart: Float[np.ndarray, " head"]
    """The distance (`distances`) to the reference's head, mean over the other seeds."""
    chance: float
    """The mean distance of all pairs, which a random matching has on average."""
    measures: Mapping[str, Sequence[Interval]]
    """{measure: an interval over seeds for each head} (`interp.pattern_stats.measure_rows`)."""


@dataclass(frozen=True, eq=False)
class HeadMatching:
    """Runs of several seeds whose heads were matched."""

    reference: int
    """The run that the others are matched to, counted from 0."""
    step: int
    """The step of the patterns: the last that all runs recorded."""
    measured: int
    """The step of the measures: the last at which all runs measured."""
    layers: Sequence[MatchedLayer]
    """In the order of the model."""


def distances(
    patterns: Sequence[Pattern], other_patterns: Sequence[Pattern]
) -> Float[Tensor, "head other"]:
    """Compute the distance of every pair of heads of a layer in two runs, 0 to 1.

    The Jensen-Shannon distance of a row (`attnlab.interp.pattern_stats`), mean over all queries of
    the probes that have the same name and tokens in both runs; other probes are ignored. Equal
    patterns have 0; the record's rounding changes a distance by .01 or less in most rows. Raises
    ValueError where the runs share no probe.
    """
    others = {_recorded_sequence(pattern): pattern for pattern in other_patterns}
    pairs = [
        (pattern, others[sequence])
        for pattern in patterns
        if (sequence := _recorded_sequence(pattern)) in others
    ]
    if not pairs:
        raise ValueError(
            "no probe has the same tokens in both runs; heads are matched by where they look on "
            "the same sequences"
        )
    total = torch.zeros(len(pairs[0][0].weights), len(pairs[0][1].weights), dtype=torch.float64)
    num_queries = 0
    for pattern, other_pattern in pairs:
        divergence = between_heads(_normalised_rows(pattern), _normalised_rows(other_pattern))
        row_distances = (divergence / math.log(2)).sqrt()
        total += reduce(row_distances.double(), "1 head other query -> head other", "sum")
        num_queries += row_distances.shape[-1]
    return (total / num_queries).float()


def match_heads(cost: Float[Tensor, "head head"]) -> Int[np.ndarray, " head"]:
    """Return the column assigned to each row of a cost, at the least total (Kuhn 1955)."""
    return linear_sum_assignment(cost.numpy())[1]


def match_runs(records: Sequence[Record]) -> HeadMatching:
    """Match the heads of runs that differ only in their seed, then average each over the seeds.

    The reference is the run to which the matched heads of the other runs are closest, summed over
    all layers (the medoid; the first of equals), and every other run is matched to it. The matching
    has the least distance of all, so even unrelated heads are closer than by chance. Raises
    ValueError for fewer than two runs, and where patterns or measures cannot be compared.
    """
    if len(records) < 2:
        raise ValueError(f"{len(records)} run has nothing to be matched with; give two or more")
    scores = _aligned_scores(records)
    layers = list(scores[0])
    step = _last_common("recorded patterns", [_pattern_steps(record) for record in records])
    measured_steps = [
        [step for steps, _ in run_scores[layers[0]].values() for step in steps.tolist()]
        for run_scores in scores
    ]
    measured_step = _last_common("measured heads", measured_steps)
    patterns = [_patterns_by_layer(record, step, layers) for record in records]
    costs = {layer: _pairwise_distances(records, scores, patterns, layer) for layer in layers}
    reference = _medoid(list(costs.values()), len(records))
    return HeadMatching(
        reference,
        step,
        measured_step,
        [
            _match_layer(
                layer,
                [costs[layer][reference, run] for run in range(len(records))],
                [run_scores[layer] for run_scores in scores],
                reference,
                measured_step,
            )
            for layer in layers
        ],
    )


Measures = Mapping[str, MeasureHistory]
Distances = Mapping[tuple[int, int], Float[Tensor, "head head"]]
"""The distances of the heads of a layer, by pairs of runs."""


def _aligned_scores(records: Sequence[Record]) -> list[Scores]:
    """Return the scores of the heads of each run, under the layers of the first run.

    A layer of another run is the one of the same path; it may have another number of heads. Raises
    ValueError for a run without scores or with other layers.
    """
    scores = [load_head_scores(record) for record in records]
    layers = list(scores[0])
    for record, run_scores in zip(records, scores, strict=True):
        if not run_scores:
            raise ValueError(f"{record.name} has no measures of heads")
        if [layer.path for layer in run_scores] != [layer.path for layer in layers]:
            raise ValueError(
                f"{record.name} has the layers {_paths(run_scores)}, but {records[0].name} "
                f"{_paths(layers)}; heads are matched within a layer"
            )
    return [dict(zip(layers, run_scores.values(), strict=True)) for run_scores in scores]


def _medoid(costs: Sequence[Distances], num_runs: int) -> int:
    """Return the run whose best matchings with all runs have the least distance over all layers."""
    totals = [
        sum(
            _least_distance(layer_costs[run, other_run])
            for layer_costs in costs
            for other_run in range(num_runs)
        )
        for run in range(num_runs)
    ]
    return totals.index(min(totals))


def _paths(layers: Iterable[AttentionLayer]) -> str:
    return ", ".join(layer.path for layer in layers)


def _match_layer(
    layer: AttentionLayer,
    costs: Sequence[Float[Tensor, "head head"]],
    scores: Sequence[Measures],
    reference: int,
    measured_step: int,
) -> MatchedLayer:
    """Match the heads of a layer in all runs to those of the reference.

    `costs` has the distances of the reference's heads to those of each run.
    """
    own_heads = np.arange(len(costs[reference]))
    # Equal heads of the reference could be matched to one another, so it is not matched to itself.
    heads = np.stack(
        [own_heads if run == reference else match_heads(cost) for run, cost in enumerate(costs)]
    )
    others = [run for run in range(len(costs)) if run != reference]
    distance = np.stack([costs[run].numpy()[own_heads, heads[run]] for run in others]).mean(axis=0)
    chance = float(np.mean([costs[run].numpy().mean() for run in others]))
    measures = {}
    for name in scores[0]:
        if not all(name in run_scores for run_scores in scores):
            continue
        values = np.stack(
            [
                _values_at(run_scores[name], measured_step)[run_heads]
                for run_scores, run_heads in zip(scores, heads, strict=True)
            ]
        )
        measures[name] = [interval(values[:, head].tolist()) for head in own_heads]
    return MatchedLayer(layer, heads, distance, chance, measures)


def _values_at(history: MeasureHistory, step: int) -> Float[np.ndarray, " head"]:
    return history.values[history.steps.tolist().index(step)]


def _pairwise_distances(
    records: Sequence[Record],
    scores: Sequence[Scores],
    patterns: Sequence[Mapping[AttentionLayer, list[Pattern]]],
    layer: AttentionLayer,
) -> dict[tuple[int, int], Float[Tensor, "head head"]]:
    """Compute the distances of a layer's heads for every two runs, and for each run with itself.

    Raises ValueError where a run did not record all heads, or where runs have unequal numbers.
    """
    for record, run_scores, run_patterns in zip(records, scores, patterns, strict=True):
        _, values = next(iter(run_scores[layer].values()))
        recorded_counts = {len(pattern.weights) for pattern in run_patterns.get(layer, [])}
        if recorded_counts != {values.shape[1]}:
            raise ValueError(
                f"{record.name} recorded patterns of {max(recorded_counts, default=0)} of the "
                f"{values.shape[1]} heads of {layer.path}; to match them, record all: "
                "callbacks.recorder.layers=null callbacks.recorder.heads=null"
            )
    costs = {}
    for run in range(len(records)):
        for other_run in range(run + 1):
            costs[run, other_run] = distances(patterns[run][layer], patterns[other_run][layer])
            costs[other_run, run] = rearrange(costs[run, other_run], "head other -> other head")
    if len({len(cost) for cost in costs.values()}) > 1:
        raise ValueError(
            f"the runs have unequal numbers of heads in {layer.path}; none can be matched"
        )
    return costs


def _least_distance(cost: Float[Tensor, "head head"]) -> float:
    """Return the mean distance of the best matching."""
    return float(cost[torch.arange(len(cost)), torch.from_numpy(match_heads(cost))].mean())


def _recorded_sequence(pattern: Pattern) -> tuple[Any, ...]:
    """Return the probe, the keys' tokens, the query positions, and the queries' own tokens."""
    return (
        *(pattern.probe, tuple(pattern.tokens), tuple(pattern.query_at)),
        tuple(pattern.query_tokens or ()),
    )


def _normalised_rows(pattern: Pattern) -> Float[Tensor, "1 head query key"]:
    """Return the weights with rows that sum to 1, which the record's rounding does not preserve."""
    weights = torch.tensor(pattern.weights)
    row_sums = reduce(weights, "head query key -> head query 1", "sum")
    return rearrange(weights / row_sums.where(row_sums > 0, 1), "h q k -> 1 h q k")


def _patterns_by_layer(
    record: Record, step: int, layers: Sequence[AttentionLayer]
) -> dict[AttentionLayer, list[Pattern]]:
    """Return the attention of a step by layer; layers are identified by their path."""
    patterns = [p for p in load_patterns(record, step) if p.attention is not None]
    return {
        layer: [p for p in patterns if p.attention and p.attention.path == layer.path]
        for layer in layers
    }


def _pattern_steps(record: Record) -> list[int]:
    """Return the steps with recorded patterns. Raises ValueError where there are none."""
    steps = record.rows(TABLE)["step"].unique().to_pylist()
    if not steps:
        raise ValueError(
            f"{record.name} recorded no patterns; heads are matched by them, so train it with "
            "callbacks=default, whose `recorder` keeps them"
        )
    return steps


def _last_common(verb: str, steps_by_run: Sequence[Iterable[int]]) -> int:
    """Return the last step that all runs have; `verb` says in the error what they did at it."""
    common_steps = set.intersection(*map(set, steps_by_run))
    if not common_steps:
        raise ValueError(
            f"there is no step at which all runs {verb}; train them with the same cadence"
        )
    return max(common_steps)
