"""What happens without an edge or a head: the test of what a pattern only suggests.

run = attnlab.load("pronoun-multihead")
with prune(run.model, [HeadRef(0, 1), HeadRef(1, 3)]):      # two heads of two layers pass nothing
    print(run.evaluate("test")["accuracy"])
with cut(run.model, torch.tensor([8]), torch.tensor([1])):  # what is at 8 is blind to what is at 1
    print(run.answers(run("The animal didn't cross the street because it was too tired.")))
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlab.interp.attention import (
    Place,
    chosen_layers,
    edit_attention,
    record_patterns,
    require_heads,
)
from attnlab.interp.sequences import valid_of
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.split import Batch, Split

Means = Mapping[AttentionLayer, Float[Tensor, "head query key"]]
"""The mean pattern of each layer (`mean_patterns`)."""


@contextmanager
def cut(
    model: Model,
    query_at: Int[Tensor, " batch"],
    key_at: Int[Tensor, " batch"],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[None]:
    """Let no query at `query_at` see the key at `key_at`, in all or the named layers and heads.

    Each sequence of the batch has an edge of its own. What is left of the row is normalised anew,
    as if the key were not there. Raises LookupError for a model without attention or such a layer,
    IndexError for a head that is not there, ValueError where a query would see nothing.
    """

    def change(scores: Tensor) -> Tensor:
        at = (query_at.to(scores.device), key_at.to(scores.device))
        batch = torch.arange(len(scores), device=scores.device)
        chosen = torch.tensor(require_heads(scores, heads), device=scores.device)
        query, key, batch = (rearrange(index, "b -> b 1") for index in (*at, batch))
        changed = scores.clone()
        changed[batch, chosen, query, key] = -torch.inf
        if torch.isneginf(changed[batch, chosen, query]).all(dim=-1).any():
            raise ValueError("this edge is all that its query sees; it cannot be cut")
        return changed

    with _each(model, "scores", layers, change):
        yield


@contextmanager
def blind(model: Model, bound: int, layers: Sequence[int] | None = None) -> Iterator[None]:
    """Let no query see further back than the last `bound` tokens, its own among them.

    In all or the named layers. Raises LookupError for a model without attention or such a layer,
    ValueError for a bound below 1.
    """
    if bound < 1:
        raise ValueError(f"bound={bound} must be at least 1: a query sees its own token")

    def change(scores: Tensor) -> Tensor:
        far = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        # Queries stand for the last of the keys.
        return scores.masked_fill(far.tril(scores.shape[-1] - scores.shape[-2] - bound), -torch.inf)

    with _each(model, "scores", layers, change):
        yield


@contextmanager
def ablate(
    model: Model, layer: int, heads: Sequence[int] | None = None, means: Means | None = None
) -> Iterator[None]:
    """Let heads of a layer (None: all) pass nothing on (Michel et al. 2019, sec. 2.3).

    With `means`, they look where heads look on average instead (`mean_patterns`). Raises
    LookupError for a layer, IndexError for a head that is not there.
    """
    with _silenced(model, {layer: heads}, means):
        yield


@contextmanager
def prune(model: Model, chosen: Iterable[HeadRef], means: Means | None = None) -> Iterator[None]:
    """Ablate several heads at once, of whatever layers; none is no change."""
    by_layer: dict[int, Sequence[int] | None] = {}
    for head in chosen:
        by_layer[head.layer] = [*(by_layer.get(head.layer) or ()), head.head]
    with _silenced(model, by_layer, means):
        yield


def mean_patterns(subject: Subject, batches: Split | Iterable[Batch]) -> Means:
    """Average each pattern over a reference set, at each (query, key) position.

    What mean ablation sets in place of a pattern, so that a head still reads, but no longer chooses
    by what stands there. The mean *output* of a head, as Wang et al. (2022) take it, is past the
    taps: it would need one on what `Attend` returns.

    Where a sequence is padding its query is not counted; where all are, the row is 0 and the head
    reads nothing. The sequences that are ablated may be shorter than the reference, not longer.
    """
    model = subject.model
    sums: dict[AttentionLayer, Tensor] = {}
    counts: dict[AttentionLayer, Tensor] = {}
    with subject.observed():
        for asked in subject.ask(batches):
            with record_patterns(model) as patterns:
                model(*asked.given)
            for layer, pattern in patterns.items():
                valid = valid_of(layer.axes.queries, asked, pattern.shape[2])
                weighed = pattern.float() * rearrange(valid, "b q -> b 1 q 1")
                if layer in sums and sums[layer].shape != pattern.shape[1:]:
                    raise ValueError(
                        f"the reference has patterns of {tuple(sums[layer].shape[1:])} and "
                        f"{tuple(pattern.shape[2:])} positions; let all be of one width"
                    )
                sums[layer] = sums.get(layer, 0) + weighed.sum(dim=0)
                counts[layer] = counts.get(layer, 0) + valid.sum(dim=0)
    if not sums:
        raise ValueError("the reference is empty; a mean needs at least one sequence")
    return {
        layer: total / rearrange(counts[layer].clamp(min=1), "q -> 1 q 1")
        for layer, total in sums.items()
    }


@contextmanager
def _each(
    model: Model, place: Place, layers: Sequence[int] | None, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    chosen = chosen_layers(model, layers)
    with edit_attention(model, place, chosen, lambda _, value: change(value)):
        yield


@contextmanager
def _silenced(
    model: Model, by_layer: Mapping[int, Sequence[int] | None], means: Means | None
) -> Iterator[None]:
    if not by_layer:
        yield
        return
    layers = chosen_layers(model, by_layer)
    hidden: dict[AttentionLayer, Bool[Tensor, "batch head query key"]] = {}

    def watch(layer: AttentionLayer, scores: Tensor) -> None:
        hidden[layer] = scores.isneginf()

    def change(layer: AttentionLayer, pattern: Tensor) -> Tensor:
        heads, changed = require_heads(pattern, by_layer[layer.index]), pattern.clone()
        mean = None if means is None else _visible(means[layer], hidden[layer])
        changed[:, heads] = 0 if mean is None else mean[:, heads].to(pattern)
        return changed

    watching = nullcontext() if means is None else edit_attention(model, "scores", layers, watch)
    with watching, edit_attention(model, "pattern", layers, change):
        yield


def _visible(
    mean: Float[Tensor, "head all_queries all_keys"], hidden: Bool[Tensor, "batch head query key"]
) -> Float[Tensor, "batch head query key"]:
    """Keep of a mean pattern what each query may see, normalised anew."""
    (queries, keys), there = hidden.shape[2:], mean.shape[1:]
    if queries > there[0] or keys > there[1] or (there[0] == there[1] and queries != keys):
        raise ValueError(
            f"a pattern of {queries} queries and {keys} keys has no place in a mean of "
            f"{tuple(there)}; give whole sequences, no longer than the reference"
        )
    seen = mean[:, :queries, :keys].masked_fill(hidden, 0)
    return seen / seen.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
