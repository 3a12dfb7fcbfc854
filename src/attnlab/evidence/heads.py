"""The heads of a model over many sequences, each layer's patterns forgotten once they are read."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.attend import Attend
from attnlab.dataset.base import Dataset
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.evidence.circuits import effective_rank, gram
from attnlab.evidence.intervene import attention_layers
from attnlab.evidence.rows import Rows, between_heads, measure
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import Batch, Split
from attnlab.tap import edit

SCORES = ("previous", "duplicate_token", "induction", "prefix_matching", "sink")
"""What heads are named by."""
QUERIES = 64
"""Rows of a pattern that are read at once."""


def heads(
    model: Model,
    objective: Objective,
    dataset: Dataset,
    *,
    num_examples: int = 512,
    batch_size: int = 64,
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
            for head, score in enumerate(statistics[f"{path}.pattern"].get(name, ()))
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

    def add_rank(self, rows: Rows) -> None:
        """Count whole patterns for `effective_rank`, a mean over sequences."""
        ranks = effective_rank(gram(rows.pattern, rows.counted))
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
    queries: int = QUERIES,
    names: str = "*.pattern",
    pairs: bool = True,
    rank: bool = False,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, dict[str, Float[Tensor, " head"]]]:
    """Summarise each head over a split, or over batches of a dataset: {tap: {measure: (head,)}}.

    Taps stand in the order in which a pass comes to them. Means are over queries that are no
    padding, so `batch_size` does not move them. No two layers' patterns are held at once, and what
    is made of one is made of `queries` rows at a time. `num_examples` takes so many of a split, its
    first ones. `rank` adds the effective rank, whose cost grows with the third power of the length.
    Training is bit-equal with and without it. Raises LookupError for a model without such taps,
    ValueError for no batches, RuntimeError if nothing was heard.
    """
    tallies: dict[str, Tally] = {}
    seen = 0
    with undisturbed(model), torch.no_grad(), precision():
        for batch in _numbered(batches, batch_size, num_examples):
            asked = moved(objective.ask(batch), device_of(model))
            seen += 1

            def hear(name: str, pattern: Tensor, asked: Batch = asked) -> None:
                rows = rows_of(model, name, pattern, asked)
                tally = tallies.setdefault(name, Tally(pairs=pairs))
                for part in rows.parts(queries):
                    tally.add(part)
                if rank:
                    tally.add_rank(rows)

            with edit(model, names, hear):
                model(*asked.given)
    if not seen:
        raise ValueError("no batches were given, so there is nothing to summarise")
    if not tallies:
        raise RuntimeError(f"the taps {names!r} heard nothing; give the eager model")
    return {name: tally.means() for name, tally in tallies.items()}


def rows_of(
    model: Model, name: str, pattern: Float[Tensor, "batch head query key"], asked: Batch
) -> Rows:
    """Say of a pattern that a tap let through which tokens its queries and keys are.

    An encoder's are the inputs and a decoder's the prefix; what stands between reads the one with
    the other, or with what a bottleneck made of it.
    """
    attend = model.get_submodule(name.removesuffix(".pattern"))
    causal, window = (attend.causal, attend.window) if isinstance(attend, Attend) else (False, None)
    encoder, parts = model.arrangement.encoder, name.split(".")
    inside = not encoder or parts[0] == "encoder"
    answering = (asked.inputs, asked.valid) if inside else (asked.prefix, asked.prefix_valid)
    assert answering[0] is not None
    across = encoder and ("cross" in parts or parts[0] == "attention")
    if not across:
        tokens, valid = answering[0], _all(answering[1], answering[0])
        at = torch.arange(tokens.shape[1], device=tokens.device)
        return Rows(pattern, valid, valid, at, tokens, causal, window)
    latents = model.arrangement.latents is not None
    latent = pattern.new_ones(len(pattern), 1, dtype=torch.bool)
    if parts[0] == "bottleneck":
        queries = latent.expand(-1, pattern.shape[2])
    else:
        queries = _all(answering[1], answering[0])
    if latents and parts[0] != "bottleneck":
        return Rows(pattern, queries, latent.expand(-1, pattern.shape[3]))
    return Rows(pattern, queries, _all(asked.valid, asked.inputs))


def _all(valid: Tensor | None, tokens: Tensor) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid


def _numbered(batches: Split | Iterable[Batch], size: int, most: int | None) -> Iterator[Batch]:
    """Give batches; those of a split with the numbers that an objective draws its noise by."""
    if not isinstance(batches, Split):
        yield from batches
        return
    most = len(batches) if most is None else min(most, len(batches))
    for start in range(0, most, size):
        index = np.arange(start, min(start + size, most))
        yield batches.batch(index)._replace(key=torch.from_numpy(index))
