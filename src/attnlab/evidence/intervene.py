"""What happens without an edge or a head: the test of what a pattern only suggests.

run = attnlab.load("pronoun-multihead")
with prune(run.model, [(0, 1), (1, 3)]):                    # two heads of two layers pass nothing
    print(run.evaluate("test")["accuracy"])
with cut(run.model, torch.tensor([8]), torch.tensor([1])):  # what is at 8 is blind to what is at 1
    print(run.answers(run("The animal didn't cross the street because it was too tired.")))
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlab.evidence.axes import axes, valid_of
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import Batch, Split
from attnlab.tap import edit, record, taps

Head = tuple[int, int]
"""A layer of `attention_layers` and a head of it, both counted from 0."""
Means = Mapping[str, Float[Tensor, "head query key"]]
"""The mean pattern of each layer by the name of its tap (`mean_patterns`)."""


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
def prune(model: Model, chosen: Iterable[Head], means: Means | None = None) -> Iterator[None]:
    """Ablate several heads at once, of whatever layers; none is no change."""
    by_layer: dict[int, Sequence[int] | None] = {}
    for layer, head in chosen:
        by_layer[layer] = [*(by_layer.get(layer) or ()), head]
    with _silenced(model, by_layer, means):
        yield


@torch.no_grad()
def mean_patterns(
    model: Model,
    asked: Iterable[Batch],
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, Float[Tensor, "head query key"]]:
    """Average each pattern over a reference set, at each (query, key) position.

    What mean ablation sets in place of a pattern, so that a head still reads, but no longer chooses
    by what stands there. The mean *output* of a head, as Wang et al. (2022) take it, is past the
    taps: it would need one on what `Attend` returns.

    Where a sequence is padding its query is not counted; where all are, the row is 0 and the head
    reads nothing. The sequences that are ablated may be shorter than the reference, not longer.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    with undisturbed(model):
        for batch in asked:
            with precision(), record(model, "*.pattern") as patterns:
                model(*batch.given)
            for name, pattern in patterns.items():
                valid = valid_of(axes(model, name).queries, batch, pattern.shape[2])
                weighed = pattern.float() * rearrange(valid, "b q -> b 1 q 1")
                if name in sums and sums[name].shape != pattern.shape[1:]:
                    raise ValueError(
                        f"the reference has patterns of {tuple(sums[name].shape[1:])} and "
                        f"{tuple(pattern.shape[2:])} positions; let all be of one width"
                    )
                sums[name] = sums.get(name, 0) + weighed.sum(dim=0)
                counts[name] = counts.get(name, 0) + valid.sum(dim=0)
    if not sums:
        raise ValueError("the reference is empty; a mean needs at least one sequence")
    return {
        name: total / rearrange(counts[name].clamp(min=1), "q -> 1 q 1")
        for name, total in sums.items()
    }


def questions(
    model: Model, objective: Objective, split: Split, batch_size: int = 256
) -> Iterator[Batch]:
    """Ask a model about a whole split, in batches, as `evaluate` does."""
    for start in range(0, len(split), batch_size):
        index = np.arange(start, min(start + batch_size, len(split)))
        batch = split.batch(index)._replace(key=torch.from_numpy(index))
        yield moved(objective.ask(batch), device_of(model))


def attention_layers(model: Model) -> list[str]:
    """Name the attention layers from the lowest up, by the path of what attends."""
    return [name.removesuffix(".pattern") for name in taps(model, "*.pattern")]


def heads(model: Model) -> list[int]:
    """Count the heads of each attention layer, by passing one token through the model."""
    inputs = torch.zeros(1, 1, dtype=torch.long, device=device_of(model))
    if not attention_layers(model):
        return []
    with undisturbed(model), torch.no_grad(), record(model, "*.pattern") as patterns:
        model(inputs, None, None, inputs if model.arrangement.encoder else None)
    # Layers are not always heard in the order in which they are named.
    return [patterns[f"{name}.pattern"].shape[1] for name in attention_layers(model)]


def every_head(model: Model) -> list[Head]:
    """List all heads, from the lowest layer up."""
    return [(layer, head) for layer, count in enumerate(heads(model)) for head in range(count)]


def named(model: Model, layers: Iterable[int], tap: str) -> dict[str, int]:
    """Give the names of layers' taps, with the layers. Raises LookupError for one not there."""
    there, wanted = attention_layers(model), list(layers)
    if not there or any(not 0 <= layer < len(there) for layer in wanted):
        raise LookupError(f"layers {wanted}: the model has {len(there)} attention layers")
    return {f"{there[layer]}.{tap}": layer for layer in wanted}


def require_heads(
    values: Float[Tensor, "batch head query key"], heads: Sequence[int] | None
) -> list[int]:
    """List the heads that are meant (None: all). Raises IndexError for one not there."""
    num_heads = values.shape[1]
    if heads is not None and any(not 0 <= head < num_heads for head in heads):
        raise IndexError(f"heads {list(heads)}: the layer has {num_heads} heads")
    return list(range(num_heads) if heads is None else heads)


@contextmanager
def _each(
    model: Model, tap: str, layers: Sequence[int] | None, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    wanted = range(len(attention_layers(model))) if layers is None else layers
    names = named(model, wanted, tap)
    with edit(model, f"*.{tap}", lambda name, value: change(value) if name in names else None):
        yield


@contextmanager
def _silenced(
    model: Model, by_layer: Mapping[int, Sequence[int] | None], means: Means | None
) -> Iterator[None]:
    if not by_layer:
        yield
        return
    names, scores = (named(model, by_layer, tap) for tap in ("pattern", "scores"))
    hidden: dict[int, Bool[Tensor, "batch head query key"]] = {}

    def watch(name: str, value: Tensor) -> None:
        if name in scores:
            hidden[scores[name]] = value.isneginf()

    def change(name: str, pattern: Tensor) -> Tensor | None:
        if name not in names:
            return None
        layer = names[name]
        chosen, changed = require_heads(pattern, by_layer[layer]), pattern.clone()
        mean = None if means is None else _visible(means[name], hidden[layer])
        changed[:, chosen] = 0 if mean is None else mean[:, chosen].to(pattern)
        return changed

    watching = nullcontext() if means is None else edit(model, "*.scores", watch)
    with watching, edit(model, "*.pattern", change):
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
