"""The heads of a model over many sequences, each layer's patterns forgotten once they are read."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.interp.attention import attend_of, chosen_layers, edit_attention
from attnlab.interp.circuits import effective_rank, gram
from attnlab.interp.pattern_stats import Rows, between_heads, measure
from attnlab.interp.sequences import tokens_of, valid_of
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer
from attnlab.model.base import Model
from attnlab.split import Batch, Split

SCORES = ("previous", "duplicate_token", "induction", "prefix_matching", "sink")
"""What heads are named by."""


class Tally:
    """Adds up what is measured of one layer, part by part, and gives the mean of each head.

    The same numbers, to rounding, however queries and sequences were parted. `pairs` compares each
    two heads of the layer.
    """

    def __init__(self, *, pairs: bool = True) -> None:
        self.pairs = pairs
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(self, rows: Rows) -> None:
        """Count rows, none of which was counted before."""
        rows = replace(rows, pattern=rows.pattern.float())
        for name, (values, counted) in measure(rows).items():
            chosen = values.where(rearrange(counted, "b q -> b 1 q"), 0)
            self._add(name, reduce(chosen.double(), "b h q -> h", "sum"), counted.sum())
        if self.pairs and rows.pattern.shape[1] > 1:
            apart = between_heads(rows.pattern)
            apart = apart.where(rearrange(rows.counted, "b q -> b 1 1 q"), 0)
            apart = reduce(apart.double(), "b h other q -> h other", "sum")
            self._add("between", apart, rows.counted.sum())

    def add_rank(self, products: Float[Tensor, "batch head key other"]) -> None:
        """Count the `gram` of whole patterns for `effective_rank`, a mean over sequences."""
        ranks = effective_rank(products)
        number = torch.tensor(len(ranks), device=ranks.device)
        self._add("effective_rank", reduce(ranks.double(), "b h -> h", "sum"), number)

    def means(self) -> dict[str, Float[Tensor, " head"]]:
        """Give the mean of each head, on the CPU; of what was never counted, NaN.

        `other_heads` is the mean divergence (nats) from the other heads of the layer, and
        `nearest_head` that from the nearest. One head alone has neither.
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


def summarise(parts: Iterable[Rows], *, pairs: bool = True) -> dict[str, Float[Tensor, " head"]]:
    """Give the mean of every measure over all counted queries of a layer, for each head."""
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
    """Summarise each head over a split, or over batches of a dataset: {layer: {measure: (head,)}}.

    All layers, or those of these numbers, in the order of their numbers. Means are over queries
    that are no padding, so `batch_size` does not move them. A pattern is read a few queries at a
    time and never held whole. `num_examples` takes so many of a split, its first ones. `pairs`
    compares each two heads of a layer; `rank` adds the effective rank, which holds a square for
    each head and whose cost grows with the third power of the length. Training is bit-equal with
    and without it. Raises LookupError for a model without such layers, ValueError for no batches,
    RuntimeError if nothing was heard.
    """
    model = subject.model
    chosen = chosen_layers(model, layers)
    tallies = {layer: Tally(pairs=pairs) for layer in chosen}
    asked_any = heard_any = False
    with subject.observed():
        for asked in subject.ask(batches, batch_size=batch_size, num_examples=num_examples):
            asked_any = True
            first_query: dict[AttentionLayer, int] = {}
            grams: dict[AttentionLayer, Tensor] = {}

            def tally(
                layer: AttentionLayer,
                pattern: Tensor,
                asked: Batch = asked,
                first_query: dict[AttentionLayer, int] = first_query,
                grams: dict[AttentionLayer, Tensor] = grams,
            ) -> None:
                start = first_query.get(layer, 0)
                first_query[layer] = start + pattern.shape[2]
                rows = rows_of(model, layer, pattern, asked, start)
                tallies[layer].add(rows)
                if rank:
                    grams[layer] = grams.get(layer, 0) + gram(rows.pattern, rows.counted)

            with edit_attention(model, "rows", chosen, tally):
                model(*asked.given)
            heard_any = heard_any or bool(first_query)
            for layer, products in grams.items():
                tallies[layer].add_rank(products)
    if not asked_any:
        raise ValueError("no batches were given, so there is nothing to summarise")
    if not heard_any:
        raise RuntimeError("the attention layers passed nothing on; give the eager model")
    return {layer: tally.means() for layer, tally in tallies.items()}


def rows_of(
    model: Model,
    layer: AttentionLayer,
    pattern: Float[Tensor, "batch head query key"],
    asked: Batch,
    start: int = 0,
) -> Rows:
    """Say of a layer's pattern which tokens its queries and keys are; the first is at `start`."""
    attend, axes = attend_of(model, layer), layer.axes
    end = start + pattern.shape[2]
    counted = valid_of(axes.queries, asked, end)[:, start:end]
    valid = valid_of(axes.keys, asked, pattern.shape[3])
    if axes.crosses:
        return Rows(pattern, counted, valid)
    at = torch.arange(start, end, device=pattern.device)
    tokens = tokens_of(axes.keys, asked)
    return Rows(pattern, counted, valid, at, tokens, attend.causal, attend.window)
