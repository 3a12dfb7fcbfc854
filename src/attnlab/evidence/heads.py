"""The heads of a model over many sequences, each layer's patterns forgotten once they are read."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.attend import Attend
from attnlab.dataset.base import Dataset
from attnlab.evidence.axes import axes, tokens_of, valid_of
from attnlab.evidence.base import device_of, moved, numbered, undisturbed
from attnlab.evidence.circuits import effective_rank, gram
from attnlab.evidence.intervene import attention_layers, named
from attnlab.evidence.rows import Rows, between_heads, measure
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.ranges import Count, ranged
from attnlab.split import Batch, Split
from attnlab.tap import edit

SCORES = ("previous", "duplicate_token", "induction", "prefix_matching", "sink")
"""What heads are named by."""


@ranged
def heads(
    model: Model,
    objective: Objective,
    dataset: Dataset,
    *,
    num_examples: Count = 512,
    batch_size: Count = 64,
) -> dict[str, float]:
    """Name the head with most of each kind, on the first examples of the reported split.

    For every one of SCORES (`attnlab.evidence.rows.measure` defines them): its largest mean of all
    heads, 0 to 1, and where that is, `NAME_layer` and `NAME_head`, counted as by `attnlab ablate`.
    A score that no query could have is left out. A model without attention has none.
    """
    layers = attention_layers(model)
    if not layers:
        return {}
    statistics = head_statistics(
        *(model, objective, dataset.splits[dataset.reported]),
        batch_size=batch_size,
        num_examples=num_examples,
        pairs=False,
    )
    found = {}
    for name in SCORES:
        scores = [
            (float(score), layer, head)
            for layer, path in enumerate(layers)
            for head, score in enumerate(statistics[path].get(name, ()))
            if not score.isnan()
        ]
        if scores:
            best = max(scores, key=lambda score: score[0])
            places = (name, f"{name}_layer", f"{name}_head")
            found |= zip(places, map(float, best), strict=True)
    return found


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
    model: Model,
    objective: Objective,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int = 64,
    num_examples: int | None = None,
    layers: Sequence[int] | None = None,
    pairs: bool = True,
    rank: bool = False,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, dict[str, Float[Tensor, " head"]]]:
    """Summarise each head over a split, or over batches of a dataset: {layer: {measure: (head,)}}.

    All layers, or those of these numbers, by their paths (`attention_layers`), in the order in
    which a pass comes to them. Means are over queries that are no padding, so `batch_size` does not
    move them. A pattern is read a few queries at a time and never held whole. `num_examples` takes
    so many of a split, its first ones. `pairs` compares each two heads of a layer; `rank` adds the
    effective rank, which holds a square for each head and whose cost grows with the third power of
    the length. Training is bit-equal with and without it. Raises LookupError for a model without
    such layers, ValueError for no batches, RuntimeError if nothing was heard.
    """
    there = attention_layers(model)
    chosen = named(model, range(len(there)) if layers is None else layers, "rows")
    tallies: dict[str, Tally] = {}
    seen = 0
    with undisturbed(model), torch.no_grad(), precision():
        for batch in numbered(batches, batch_size, num_examples):
            asked = moved(objective.ask(batch), device_of(model))
            seen += 1
            read: dict[str, int] = {}
            grams: dict[str, Tensor] = {}

            def hear(
                tap: str,
                pattern: Tensor,
                asked: Batch = asked,
                read: dict[str, int] = read,
                grams: dict[str, Tensor] = grams,
            ) -> None:
                if tap not in chosen:
                    return
                name, start = there[chosen[tap]], read.get(tap, 0)
                read[tap] = start + pattern.shape[2]
                rows = rows_of(model, name, pattern, asked, start)
                tallies.setdefault(name, Tally(pairs=pairs)).add(rows)
                if rank:
                    grams[name] = grams.get(name, 0) + gram(rows.pattern, rows.counted)

            with edit(model, "*.rows", hear):
                model(*asked.given)
            for name, products in grams.items():
                tallies[name].add_rank(products)
    if not seen:
        raise ValueError("no batches were given, so there is nothing to summarise")
    if not tallies:
        raise RuntimeError("the attention layers passed nothing on; give the eager model")
    return {name: tally.means() for name, tally in tallies.items()}


def rows_of(
    model: Model,
    layer: str,
    pattern: Float[Tensor, "batch head query key"],
    asked: Batch,
    start: int = 0,
) -> Rows:
    """Say of a layer's pattern which tokens its queries and keys are; the first is at `start`."""
    attend, place = model.get_submodule(layer), axes(model, layer)
    end = start + pattern.shape[2]
    counted = valid_of(place.queries, asked, end)[:, start:end]
    valid = valid_of(place.keys, asked, pattern.shape[3])
    if place.across:
        return Rows(pattern, counted, valid)
    tokens = tokens_of(place.keys, asked)
    at = torch.arange(start, end, device=pattern.device)
    causal, window = (attend.causal, attend.window) if isinstance(attend, Attend) else (False, None)
    return Rows(pattern, counted, valid, at, tokens, causal, window)
