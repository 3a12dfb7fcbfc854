"""Match the heads of one seed to those of another, so that a mean over seeds is of the same head.

heads = match_runs([Record(path) for path in sorted(Path("runs").glob("mqar-multihead-2x64-s*"))])
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

from attnlab.analysis.statistics import Interval, t_interval
from attnlab.interp.pattern_stats import head_divergence
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
    distances: Float[np.ndarray, " head"]
    """The distance (`head_distances`) to the reference's head, mean over the other seeds."""
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
    measured_step: int
    """The step of the measures: the last at which all runs measured."""
    layers: Sequence[MatchedLayer]
    """In the order of the model."""


def head_distances(
    patterns: Sequence[Pattern], other_patterns: Sequence[Pattern]
) -> Float[Tensor, "head other"]:
    """Compute the distance of every pair of heads of a layer in two runs, 0 to 1.

    The Jensen-Shannon distance of a row (`attnlab.interp.pattern_stats`), mean over all queries of
    the probes that have the same name and tokens in both runs; other probes are ignored. Equal
    patterns have 0; the record's rounding changes a distance by .01 or less in most rows. Raises
    ValueError where the runs share no probe.
    """
    pattern_by_sequence = {_recorded_sequence(pattern): pattern for pattern in other_patterns}
    pairs = [
        (pattern, pattern_by_sequence[_recorded_sequence(pattern)])
        for pattern in patterns
        if _recorded_sequence(pattern) in pattern_by_sequence
    ]
    if not pairs:
        raise ValueError(
            "no probe has the same tokens in both runs; heads are matched by where they look on "
            "the same sequences"
        )
    first_pattern, first_other_pattern = pairs[0]
    num_heads, num_other_heads = len(first_pattern.weights), len(first_other_pattern.weights)
    summed_distances = torch.zeros(num_heads, num_other_heads, dtype=torch.float64)
    num_queries = 0
    for pattern, other_pattern in pairs:
        divergence = head_divergence(_normalise_rows(pattern), _normalise_rows(other_pattern))
        row_distances = (divergence / math.log(2)).sqrt()
        summed_distances += reduce(
            row_distances.double(), "1 head other query -> head other", "sum"
        )
        num_queries += row_distances.shape[-1]
    return (summed_distances / num_queries).float()


def match_heads(cost: Float[Tensor, "head head"]) -> Int[np.ndarray, " head"]:
    """Return the column assigned to each row of a cost, at the least total (Kuhn 1955)."""
    _, columns = linear_sum_assignment(cost.numpy())
    return columns


def match_runs(records: Sequence[Record]) -> HeadMatching:
    """Match the heads of runs that differ only in their seed, then average each over the seeds.

    The reference is the run to which the matched heads of the other runs are closest, summed over
    all layers (the medoid; the first of equals), and every other run is matched to it. The matching
    has the least distance of all, so even unrelated heads are closer than by chance. Raises
    ValueError for fewer than two runs, and where patterns or measures cannot be compared.
    """
    if len(records) < 2:
        raise ValueError(f"{len(records)} run has nothing to be matched with; give two or more")
    scores_of_runs = _align_scores(records)
    layers = list(scores_of_runs[0])
    step = _last_common_step("recorded patterns", [_pattern_steps(record) for record in records])
    measured_steps = [
        [
            measured_step
            for steps, _ in scores[layers[0]].values()
            for measured_step in steps.tolist()
        ]
        for scores in scores_of_runs
    ]
    last_measured_step = _last_common_step("measured heads", measured_steps)
    patterns_of_runs = [_patterns_by_layer(record, step, layers) for record in records]
    distances_by_layer = {
        layer: _pairwise_distances(records, scores_of_runs, patterns_of_runs, layer)
        for layer in layers
    }
    reference = _medoid(list(distances_by_layer.values()), len(records))
    return HeadMatching(
        reference,
        step,
        last_measured_step,
        [
            _match_layer(
                layer,
                [distances_by_layer[layer][reference, run] for run in range(len(records))],
                [scores[layer] for scores in scores_of_runs],
                reference,
                last_measured_step,
            )
            for layer in layers
        ],
    )


Histories = Mapping[str, MeasureHistory]
"""The measures of the heads of a layer over the steps, by measure."""
Distances = Mapping[tuple[int, int], Float[Tensor, "head head"]]
"""The distances of the heads of a layer, by pairs of runs."""


def _align_scores(records: Sequence[Record]) -> list[Scores]:
    """Return the scores of the heads of each run, under the layers of the first run.

    A layer of another run is the one of the same path; it may have another number of heads. Raises
    ValueError for a run without scores or with other layers.
    """
    scores_of_runs = [load_head_scores(record) for record in records]
    layers = list(scores_of_runs[0])
    for record, scores in zip(records, scores_of_runs, strict=True):
        if not scores:
            raise ValueError(f"{record.name} has no measures of heads")
        if [layer.path for layer in scores] != [layer.path for layer in layers]:
            raise ValueError(
                f"{record.name} has the layers {_join_paths(scores)}, but {records[0].name} "
                f"{_join_paths(layers)}; heads are matched within a layer"
            )
    return [dict(zip(layers, scores.values(), strict=True)) for scores in scores_of_runs]


def _medoid(distances_of_layers: Sequence[Distances], num_runs: int) -> int:
    """Return the run whose best matchings with all runs have the least distance over all layers."""
    summed_distances = [
        sum(
            _least_distance(distances[run, other_run])
            for distances in distances_of_layers
            for other_run in range(num_runs)
        )
        for run in range(num_runs)
    ]
    return summed_distances.index(min(summed_distances))


def _join_paths(layers: Iterable[AttentionLayer]) -> str:
    return ", ".join(layer.path for layer in layers)


def _match_layer(
    layer: AttentionLayer,
    distances_to_runs: Sequence[Float[Tensor, "head head"]],
    histories_of_runs: Sequence[Histories],
    reference: int,
    measured_step: int,
) -> MatchedLayer:
    """Match the heads of a layer in all runs to those of the reference.

    `distances_to_runs` has the distances of the reference's heads to those of each run.
    """
    reference_heads = np.arange(len(distances_to_runs[reference]))
    # Equal heads of the reference could be matched to one another, so it is not matched to itself.
    matched_heads = np.stack(
        [
            reference_heads if run == reference else match_heads(distances)
            for run, distances in enumerate(distances_to_runs)
        ]
    )
    other_runs = [run for run in range(len(distances_to_runs)) if run != reference]
    matched_distances = [
        distances_to_runs[run].numpy()[reference_heads, matched_heads[run]] for run in other_runs
    ]
    chance = float(np.mean([distances_to_runs[run].numpy().mean() for run in other_runs]))
    intervals_by_measure = {}
    for measure in histories_of_runs[0]:
        if not all(measure in histories for histories in histories_of_runs):
            continue
        values = np.stack(
            [
                _values_at_step(histories[measure], measured_step)[run_heads]
                for histories, run_heads in zip(histories_of_runs, matched_heads, strict=True)
            ]
        )
        intervals_by_measure[measure] = [
            t_interval(values[:, head].tolist()) for head in reference_heads
        ]
    mean_distances = np.stack(matched_distances).mean(axis=0)
    return MatchedLayer(layer, matched_heads, mean_distances, chance, intervals_by_measure)


def _values_at_step(history: MeasureHistory, step: int) -> Float[np.ndarray, " head"]:
    return history.values[history.steps.tolist().index(step)]


def _pairwise_distances(
    records: Sequence[Record],
    scores_of_runs: Sequence[Scores],
    patterns_of_runs: Sequence[Mapping[AttentionLayer, list[Pattern]]],
    layer: AttentionLayer,
) -> dict[tuple[int, int], Float[Tensor, "head head"]]:
    """Compute the distances of a layer's heads for every two runs, and for each run with itself.

    Raises ValueError where a run did not record all heads, or where runs have unequal numbers.
    """
    for record, scores, patterns in zip(records, scores_of_runs, patterns_of_runs, strict=True):
        _, values = next(iter(scores[layer].values()))
        num_heads = values.shape[1]
        recorded_counts = {len(pattern.weights) for pattern in patterns.get(layer, [])}
        if recorded_counts != {num_heads}:
            raise ValueError(
                f"{record.name} recorded patterns of {max(recorded_counts, default=0)} of the "
                f"{num_heads} heads of {layer.path}; to match them, record all: "
                "callbacks.recorder.layers=null callbacks.recorder.heads=null"
            )
    distances_by_pair = {}
    for run in range(len(records)):
        for other_run in range(run + 1):
            distances = head_distances(
                patterns_of_runs[run][layer], patterns_of_runs[other_run][layer]
            )
            distances_by_pair[run, other_run] = distances
            distances_by_pair[other_run, run] = rearrange(distances, "head other -> other head")
    if len({len(distances) for distances in distances_by_pair.values()}) > 1:
        raise ValueError(
            f"the runs have unequal numbers of heads in {layer.path}; none can be matched"
        )
    return distances_by_pair


def _least_distance(distances: Float[Tensor, "head head"]) -> float:
    """Return the mean distance of the best matching."""
    matched_heads = torch.from_numpy(match_heads(distances))
    return float(distances[torch.arange(len(distances)), matched_heads].mean())


def _recorded_sequence(pattern: Pattern) -> tuple[Any, ...]:
    """Return the probe, the keys' tokens, the query positions, and the queries' own tokens."""
    return (
        *(pattern.probe, tuple(pattern.tokens), tuple(pattern.query_at)),
        tuple(pattern.query_tokens or ()),
    )


def _normalise_rows(pattern: Pattern) -> Float[Tensor, "1 head query key"]:
    """Return the weights with rows that sum to 1, which the record's rounding does not preserve."""
    weights = torch.tensor(pattern.weights)
    row_sums = reduce(weights, "head query key -> head query 1", "sum")
    return rearrange(weights / row_sums.where(row_sums > 0, 1), "h q k -> 1 h q k")


def _patterns_by_layer(
    record: Record, step: int, layers: Sequence[AttentionLayer]
) -> dict[AttentionLayer, list[Pattern]]:
    """Return the attention of a step by layer; layers are identified by their path."""
    patterns = load_patterns(record, step)
    return {
        layer: [p for p in patterns if p.attention is not None and p.attention.path == layer.path]
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


def _last_common_step(action: str, steps_of_runs: Sequence[Iterable[int]]) -> int:
    """Return the last step that all runs have; `action` says in the error what they did at it."""
    common_steps = set.intersection(*map(set, steps_of_runs))
    if not common_steps:
        raise ValueError(
            f"there is no step at which all runs {action}; train them with the same cadence"
        )
    return max(common_steps)
