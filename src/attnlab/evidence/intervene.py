"""What happens without an edge or a head: the test of what a pattern only suggests."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from attnlab.evidence.base import device_of, undisturbed
from attnlab.model.base import Model
from attnlab.tap import edit, record, taps


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
        chosen = torch.tensor(_heads(scores, heads), device=scores.device)
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
def ablate(model: Model, layer: int, heads: Sequence[int] | None = None) -> Iterator[None]:
    """Let heads of a layer (None: all) pass nothing on (Michel et al. 2019, sec. 2.3).

    Raises LookupError for a layer, IndexError for a head that is not there.
    """

    def change(pattern: Tensor) -> Tensor:
        changed = pattern.clone()
        changed[:, _heads(pattern, heads)] = 0
        return changed

    with _each(model, "pattern", [layer], change):
        yield


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
    return [pattern.shape[1] for pattern in patterns.values()]


@contextmanager
def _each(
    model: Model, tap: str, layers: Sequence[int] | None, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    there = attention_layers(model)
    wanted = range(len(there)) if layers is None else layers
    if not there or any(not 0 <= layer < len(there) for layer in wanted):
        raise LookupError(f"layers {list(wanted)}: the model has {len(there)} attention layers")
    names = {f"{there[layer]}.{tap}" for layer in wanted}
    with edit(model, f"*.{tap}", lambda name, value: change(value) if name in names else None):
        yield


def _heads(values: Tensor, heads: Sequence[int] | None) -> list[int]:
    num_heads = values.shape[1]
    if heads is not None and any(not 0 <= head < num_heads for head in heads):
        raise IndexError(f"heads {list(heads)}: the layer has {num_heads} heads")
    return list(range(num_heads) if heads is None else heads)
