"""Statistics of heads over many sequences; no pattern is kept after it is summarised."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.interp.attention_taps import attend_module, edit_attention, select_layers
from attnlab.interp.circuits import effective_rank, gram_matrix
from attnlab.interp.pattern_stats import PatternRows, head_divergence, measure_rows
from attnlab.interp.sequences import sequence_tokens, sequence_valid
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer
from attnlab.model.base import Model
from attnlab.split import Batch, Split

SCORES = ("previous", "duplicate_token", "induction", "prefix_matching", "sink")
"""The statistics whose largest value names a head."""
PAIR_DIVERGENCE = "pair_divergence"
"""The divergence of each two heads of a layer, from which `means` takes two measures."""


class Tally:
    """Sums the measures of one layer, row by row, and returns the mean of each head.

    The numbers are the same, to rounding, however queries and sequences are split. `compare_heads`
    compares each two heads of the layer.
    """

    def __init__(self, *, compare_heads: bool = True) -> None:
        self.compare_heads = compare_heads
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(self, rows: PatternRows) -> None:
        """Add rows, each of which is added once."""
        rows = replace(rows, pattern=rows.pattern.float())
        for measure, (values, counted) in measure_rows(rows).items():
            counted_values = values.where(rearrange(counted, "b q -> b 1 q"), 0)
            self._add(measure, reduce(counted_values.double(), "b h q -> h", "sum"), counted.sum())
        if self.compare_heads and rows.pattern.shape[1] > 1:
            divergence = head_divergence(rows.pattern)
            counted_divergence = divergence.where(rearrange(rows.counted, "b q -> b 1 1 q"), 0)
            total = reduce(counted_divergence.double(), "b h other q -> h other", "sum")
            self._add(PAIR_DIVERGENCE, total, rows.counted.sum())

    def add_rank(self, grams: Float[Tensor, "batch head key other"]) -> None:
        """Add the effective rank of whole patterns, from their Gram matrices, one a sequence."""
        ranks = effective_rank(grams)
        num_sequences = torch.tensor(len(ranks), device=ranks.device)
        self._add("effective_rank", reduce(ranks.double(), "b h -> h", "sum"), num_sequences)

    def means(self) -> dict[str, Float[Tensor, " head"]]:
        """Return the mean of each measure for each head, on the CPU; NaN where no query counted.

        `other_heads` is the mean divergence (nats) from the other heads of the layer, and
        `nearest_head` that from the nearest. A layer with one head has neither.
        """
        mean_by_measure = {
            measure: (total / self.counts[measure]).cpu() for measure, total in self.sums.items()
        }
        pair_divergence = mean_by_measure.pop(PAIR_DIVERGENCE, None)
        if pair_divergence is not None:
            num_others = len(pair_divergence) - 1
            mean_by_measure["other_heads"] = pair_divergence.sum(dim=1) / num_others
            mean_by_measure["nearest_head"] = pair_divergence.fill_diagonal_(torch.inf).amin(dim=1)
        return {measure: mean.float() for measure, mean in mean_by_measure.items()}

    def _add(self, measure: str, total: Tensor, count: Tensor) -> None:
        self.sums[measure] = self.sums[measure] + total if measure in self.sums else total
        self.counts[measure] = self.counts[measure] + count if measure in self.counts else count


def summarise(
    row_batches: Iterable[PatternRows], *, compare_heads: bool = True
) -> dict[str, Float[Tensor, " head"]]:
    """Return the mean of every measure over all counted queries of a layer, for each head.

    With `compare_heads`, each two heads are compared too.
    """
    tally = Tally(compare_heads=compare_heads)
    for rows in row_batches:
        tally.add(rows)
    return tally.means()


def head_statistics(
    subject: Subject,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int | None = None,
    num_examples: int | None = None,
    layers: Sequence[int] | None = None,
    compare_heads: bool = True,
    measure_rank: bool = False,
) -> dict[AttentionLayer, dict[str, Float[Tensor, " head"]]]:
    """Compute the mean measures of each head over a split or batches: {layer: {measure: (head,)}}.

    For all layers, or those with the indices `layers`, in that order. Means are over queries that
    are no padding, so `batch_size` does not change them. A pattern is read a few queries at a time
    and never held whole. `num_examples` takes the first examples of a split. `compare_heads`
    compares each two heads of a layer; `measure_rank` adds the effective rank, which holds a square
    matrix for each head and whose cost grows with the third power of the length. Training is
    bit-equal with and without this. Raises LookupError for a model without such layers, ValueError
    for no batches, and RuntimeError if no layer passed a pattern.
    """
    model = subject.model
    selected_layers = select_layers(model, layers)
    tallies = {layer: Tally(compare_heads=compare_heads) for layer in selected_layers}
    has_batch = has_pattern = False
    with subject.observed():
        for batch in subject.batches(batches, batch_size=batch_size, num_examples=num_examples):
            has_batch = True
            next_query: dict[AttentionLayer, int] = {}
            grams: dict[AttentionLayer, Tensor] = {}

            def add_rows(
                layer: AttentionLayer,
                pattern: Tensor,
                batch: Batch = batch,
                next_query: dict[AttentionLayer, int] = next_query,
                grams: dict[AttentionLayer, Tensor] = grams,
            ) -> None:
                first_query = next_query.get(layer, 0)
                next_query[layer] = first_query + pattern.shape[2]
                rows = build_pattern_rows(model, layer, pattern, batch, first_query)
                tallies[layer].add(rows)
                if measure_rank:
                    grams[layer] = grams.get(layer, 0) + gram_matrix(rows.pattern, rows.counted)

            with edit_attention(model, "rows", selected_layers, add_rows):
                model(*batch.model_inputs)
            has_pattern = has_pattern or bool(next_query)
            for layer, layer_grams in grams.items():
                tallies[layer].add_rank(layer_grams)
    if not has_batch:
        raise ValueError("no batches were given, so there is nothing to summarise")
    if not has_pattern:
        raise RuntimeError("the attention layers passed nothing on; give the eager model")
    return {layer: tally.means() for layer, tally in tallies.items()}


def build_pattern_rows(
    model: Model,
    layer: AttentionLayer,
    pattern: Float[Tensor, "batch head query key"],
    batch: Batch,
    first_query: int = 0,
) -> PatternRows:
    """Build the `PatternRows` of a layer's pattern; `first_query` is its first query's position."""
    attend, axes = attend_module(model, layer), layer.axes
    end_query = first_query + pattern.shape[2]
    counted = sequence_valid(axes.queries, batch, end_query)[:, first_query:end_query]
    valid = sequence_valid(axes.keys, batch, pattern.shape[3])
    if axes.crosses:
        return PatternRows(pattern, counted, valid)
    query_positions = torch.arange(first_query, end_query, device=pattern.device)
    tokens = sequence_tokens(axes.keys, batch)
    documents = None if tokens is None else model.number_documents(tokens)
    return PatternRows(
        *(pattern, counted, valid, query_positions, tokens),
        *(attend.causal, attend.window, documents),
    )
