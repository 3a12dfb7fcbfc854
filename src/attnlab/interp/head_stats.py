"""Statistics of heads over many sequences; no pattern is kept after it is summarised."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.interp.attention_taps import attend_module, edit_attention, select_layers
from attnlab.interp.circuits import effective_rank, gram
from attnlab.interp.pattern_stats import PatternRows, between_heads, measure_rows
from attnlab.interp.sequences import sequence_tokens, sequence_valid
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer
from attnlab.model.base import Model
from attnlab.split import Batch, Split

SCORES = ("previous", "duplicate_token", "induction", "prefix_matching", "sink")
"""The statistics whose largest value names a head."""


class Tally:
    """Sums the measures of one layer, part by part, and returns the mean of each head.

    The numbers are the same, to rounding, however queries and sequences are split. `pairs` compares
    each two heads of the layer.
    """

    def __init__(self, *, pairs: bool = True) -> None:
        self.pairs = pairs
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(self, rows: PatternRows) -> None:
        """Add rows, each of which is added once."""
        rows = replace(rows, pattern=rows.pattern.float())
        for name, (values, counted) in measure_rows(rows).items():
            counted_values = values.where(rearrange(counted, "b q -> b 1 q"), 0)
            self._add(name, reduce(counted_values.double(), "b h q -> h", "sum"), counted.sum())
        if self.pairs and rows.pattern.shape[1] > 1:
            divergence = between_heads(rows.pattern)
            divergence = divergence.where(rearrange(rows.counted, "b q -> b 1 1 q"), 0)
            divergence = reduce(divergence.double(), "b h other q -> h other", "sum")
            self._add("between", divergence, rows.counted.sum())

    def add_rank(self, grams: Float[Tensor, "batch head key other"]) -> None:
        """Add the effective rank of whole patterns, from their `gram`; the mean is by sequence."""
        ranks = effective_rank(grams)
        num_sequences = torch.tensor(len(ranks), device=ranks.device)
        self._add("effective_rank", reduce(ranks.double(), "b h -> h", "sum"), num_sequences)

    def means(self) -> dict[str, Float[Tensor, " head"]]:
        """Return the mean of each measure for each head, on the CPU; NaN where no query counted.

        `other_heads` is the mean divergence (nats) from the other heads of the layer, and
        `nearest_head` that from the nearest. A layer with one head has neither.
        """
        means = {name: (total / self.counts[name]).cpu() for name, total in self.sums.items()}
        between = means.pop("between", None)
        if between is not None:
            means["other_heads"] = between.sum(dim=1) / (len(between) - 1)
            means["nearest_head"] = between.fill_diagonal_(torch.inf).amin(dim=1)
        return {name: mean.float() for name, mean in means.items()}

    def _add(self, name: str, total: Tensor, count: Tensor) -> None:
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.counts[name] = self.counts[name] + count if name in self.counts else count


def summarise(
    parts: Iterable[PatternRows], *, pairs: bool = True
) -> dict[str, Float[Tensor, " head"]]:
    """Return the mean of every measure over all counted queries of a layer, for each head.

    With `pairs`, each two heads are compared too.
    """
    tally = Tally(pairs=pairs)
    for rows in parts:
        tally.add(rows)
    return tally.means()


def head_statistics(
    subject: Subject,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int | None = None,
    num_examples: int | None = None,
    layers: Sequence[int] | None = None,
    pairs: bool = True,
    rank: bool = False,
) -> dict[AttentionLayer, dict[str, Float[Tensor, " head"]]]:
    """Compute the mean measures of each head over a split or batches: {layer: {measure: (head,)}}.

    For all layers, or those with the indices `layers`, in that order. Means are over queries that
    are no padding, so `batch_size` does not change them. A pattern is read a few queries at a time
    and never held whole. `num_examples` takes the first examples of a split. `pairs` compares each
    two heads of a layer; `rank` adds the effective rank, which holds a square matrix for each head
    and whose cost grows with the third power of the length. Training is bit-equal with and without
    this. Raises LookupError for a model without such layers, ValueError for no batches, and
    RuntimeError if no layer passed a pattern.
    """
    model = subject.model
    selected_layers = select_layers(model, layers)
    tallies = {layer: Tally(pairs=pairs) for layer in selected_layers}
    has_batch = has_pattern = False
    with subject.observed():
        for batch in subject.batches(batches, batch_size=batch_size, num_examples=num_examples):
            has_batch = True
            first_query: dict[AttentionLayer, int] = {}
            grams: dict[AttentionLayer, Tensor] = {}

            def tally(
                layer: AttentionLayer,
                pattern: Tensor,
                batch: Batch = batch,
                first_query: dict[AttentionLayer, int] = first_query,
                grams: dict[AttentionLayer, Tensor] = grams,
            ) -> None:
                start = first_query.get(layer, 0)
                first_query[layer] = start + pattern.shape[2]
                rows = rows_of(model, layer, pattern, batch, start)
                tallies[layer].add(rows)
                if rank:
                    grams[layer] = grams.get(layer, 0) + gram(rows.pattern, rows.counted)

            with edit_attention(model, "rows", selected_layers, tally):
                model(*batch.model_inputs)
            has_pattern = has_pattern or bool(first_query)
            for layer, layer_grams in grams.items():
                tallies[layer].add_rank(layer_grams)
    if not has_batch:
        raise ValueError("no batches were given, so there is nothing to summarise")
    if not has_pattern:
        raise RuntimeError("the attention layers passed nothing on; give the eager model")
    return {layer: tally.means() for layer, tally in tallies.items()}


def rows_of(
    model: Model,
    layer: AttentionLayer,
    pattern: Float[Tensor, "batch head query key"],
    batch: Batch,
    start: int = 0,
) -> PatternRows:
    """Build the `PatternRows` of a layer's pattern, whose first query is at position `start`."""
    attend, axes = attend_module(model, layer), layer.axes
    end = start + pattern.shape[2]
    counted = sequence_valid(axes.queries, batch, end)[:, start:end]
    valid = sequence_valid(axes.keys, batch, pattern.shape[3])
    if axes.crosses:
        return PatternRows(pattern, counted, valid)
    query_positions = torch.arange(start, end, device=pattern.device)
    tokens = sequence_tokens(axes.keys, batch)
    documents = None if tokens is None else model.number_documents(tokens)
    return PatternRows(
        *(pattern, counted, valid, query_positions, tokens),
        *(attend.causal, attend.window, documents),
    )
