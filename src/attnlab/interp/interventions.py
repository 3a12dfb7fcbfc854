"""Interventions on attention: cut an edge, limit the reach, ablate or prune heads.

run = attnlab.load("pronoun-multihead")
with prune(run.model, [HeadRef(0, 1), HeadRef(1, 3)]):      # two heads of two layers output 0
    print(run.evaluate("test")["accuracy"])
with knock_out_edge(run.model, torch.tensor([8]), torch.tensor([1])):  # 8 does not see 1
    print(run.answers(run("The animal didn't cross the street because it was too tired.")))
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlab.interp.attention_taps import (
    TapName,
    edit_attention,
    head_indices,
    record_patterns,
    select_layers,
)
from attnlab.interp.sequences import sequence_valid
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.split import Batch, Split

MeanPatterns = Mapping[AttentionLayer, Float[Tensor, "head query key"]]
"""The pattern of each layer's heads, averaged over the sequences of a reference set
(`mean_patterns`): what mean ablation sets in place of a pattern."""


@contextmanager
def knock_out_edge(
    model: Model,
    query_at: Int[Tensor, " batch"],
    key_at: Int[Tensor, " batch"],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[None]:
    """Hide the key at `key_at` from the query at `query_at`, in the given layers and heads or all.

    Each sequence of the batch has an edge of its own. The rest of the row is normalised again, as
    if the key did not exist. Raises LookupError for a model without attention or such a layer,
    IndexError for a head that the layer lacks, ValueError where a query would see no key.
    """

    def hide_edge(scores: Tensor) -> Tensor:
        selected_heads = torch.tensor(head_indices(scores, heads), device=scores.device)
        sequence, query, key = (
            rearrange(index.to(scores.device), "b -> b 1")
            for index in (torch.arange(len(scores)), query_at, key_at)
        )
        cut_scores = scores.clone()
        cut_scores[sequence, selected_heads, query, key] = -torch.inf
        if torch.isneginf(cut_scores[sequence, selected_heads, query]).all(dim=-1).any():
            raise ValueError("this edge is all that its query sees; it cannot be cut")
        return cut_scores

    with _edit_layers(model, "scores", layers, hide_edge):
        yield


@contextmanager
def limit_reach(
    model: Model, num_visible: int, layers: Sequence[int] | None = None
) -> Iterator[None]:
    """Hide all keys from a query but the last `num_visible` tokens, its own among them.

    In the given layers (None: all). Raises LookupError for a model without attention or
    such a layer, ValueError for `num_visible` below 1.
    """
    if num_visible < 1:
        raise ValueError(
            f"num_visible={num_visible} must be at least 1: a query sees its own token"
        )

    def hide_far_keys(scores: Tensor) -> Tensor:
        num_queries, num_keys = scores.shape[-2:]
        every_key = torch.ones(num_queries, num_keys, dtype=torch.bool, device=scores.device)
        # The queries are the last positions among the keys.
        is_far = every_key.tril(num_keys - num_queries - num_visible)
        return scores.masked_fill(is_far, -torch.inf)

    with _edit_layers(model, "scores", layers, hide_far_keys):
        yield


@contextmanager
def ablate(
    model: Model, layer: int, heads: Sequence[int] | None = None, means: MeanPatterns | None = None
) -> Iterator[None]:
    """Replace the patterns of heads of a layer (None: all) in the forward passes inside of it.

    Zero ablation (`means` is None) sets them to 0, so that the heads output 0 (Michel et al. 2019,
    sec. 2.3). Mean ablation sets them to `means`, so that the heads read by a pattern that does not
    depend on the tokens. Gradients and evaluation mode are left as they are. Raises LookupError
    for a layer that the model lacks, IndexError for a head that the layer lacks.
    """
    with _ablate_by_layer(model, {layer: heads}, means):
        yield


@contextmanager
def prune(
    model: Model, pruned_heads: Iterable[HeadRef], means: MeanPatterns | None = None
) -> Iterator[None]:
    """Ablate several heads of any layers at once; no heads is no change."""
    heads_by_layer: dict[int, Sequence[int] | None] = {}
    for head in pruned_heads:
        heads_by_layer[head.layer] = [*(heads_by_layer.get(head.layer) or ()), head.head]
    with _ablate_by_layer(model, heads_by_layer, means):
        yield


def mean_patterns(subject: Subject, batches: Split | Iterable[Batch]) -> MeanPatterns:
    """Compute the mean of each pattern over a reference set, at each (query, key) position.

    Mean ablation sets it in place of a pattern, so a head still reads, but its weights no longer
    depend on the tokens. The mean *output* of a head, as Wang et al. (2022) take it, is out of
    reach of the taps: it would need a tap on what `Attend` returns.

    A query that is padding is not counted; where all are, the row is 0 and the head reads nothing.
    The sequences that are ablated may be shorter than those of the reference, not longer.
    """
    model = subject.model
    sums: dict[AttentionLayer, Tensor] = {}
    counts: dict[AttentionLayer, Tensor] = {}
    with subject.observed():
        for batch in subject.batches(batches):
            with record_patterns(model) as patterns:
                model(*batch.model_inputs)
            for layer, pattern in patterns.items():
                is_token = sequence_valid(layer.axes.queries, batch, pattern.shape[2])
                counted_rows = pattern.float() * rearrange(is_token, "b q -> b 1 q 1")
                if layer in sums and sums[layer].shape != pattern.shape[1:]:
                    raise ValueError(
                        f"the reference has patterns of {tuple(sums[layer].shape[1:])} and "
                        f"{tuple(pattern.shape[2:])} positions; let all be of one width"
                    )
                sums[layer] = sums.get(layer, 0) + counted_rows.sum(dim=0)
                counts[layer] = counts.get(layer, 0) + is_token.sum(dim=0)
    if not sums:
        raise ValueError("the reference is empty; a mean needs at least one sequence")
    return {
        layer: total / rearrange(counts[layer].clamp(min=1), "q -> 1 q 1")
        for layer, total in sums.items()
    }


@contextmanager
def _edit_layers(
    model: Model,
    tap_name: TapName,
    layers: Sequence[int] | None,
    edit_value: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Replace the values at a tap of the layers with these indices by `edit_value(value)`."""
    selected_layers = select_layers(model, layers)
    with edit_attention(model, tap_name, selected_layers, lambda _, value: edit_value(value)):
        yield


@contextmanager
def _ablate_by_layer(
    model: Model, heads_by_layer: Mapping[int, Sequence[int] | None], means: MeanPatterns | None
) -> Iterator[None]:
    """Replace the patterns of heads, by index of their layer, by zeros or by their means."""
    if not heads_by_layer:
        yield
        return
    layers = select_layers(model, heads_by_layer)
    hidden_by_layer: dict[AttentionLayer, Bool[Tensor, "batch head query key"]] = {}

    def record_hidden(layer: AttentionLayer, scores: Tensor) -> None:
        hidden_by_layer[layer] = scores.isneginf()

    def replace_pattern(layer: AttentionLayer, pattern: Tensor) -> Tensor:
        heads = head_indices(pattern, heads_by_layer[layer.index])
        ablated_pattern = pattern.clone()
        if means is None:
            ablated_pattern[:, heads] = 0
        else:
            mean_pattern = _mask_mean(means[layer], hidden_by_layer[layer])
            ablated_pattern[:, heads] = mean_pattern[:, heads].to(pattern)
        return ablated_pattern

    score_recording = (
        nullcontext() if means is None else edit_attention(model, "scores", layers, record_hidden)
    )
    with score_recording, edit_attention(model, "pattern", layers, replace_pattern):
        yield


def _mask_mean(
    mean_pattern: Float[Tensor, "head all_queries all_keys"],
    is_hidden: Bool[Tensor, "batch head query key"],
) -> Float[Tensor, "batch head query key"]:
    """Return the part of a mean pattern that each query may see, normalised again."""
    (num_queries, num_keys), mean_shape = is_hidden.shape[2:], mean_pattern.shape[1:]
    if (
        num_queries > mean_shape[0]
        or num_keys > mean_shape[1]
        or (mean_shape[0] == mean_shape[1] and num_queries != num_keys)
    ):
        raise ValueError(
            f"a pattern of {num_queries} queries and {num_keys} keys has no place in a mean of "
            f"{tuple(mean_shape)}; give whole sequences, no longer than the reference"
        )
    visible_mean = mean_pattern[:, :num_queries, :num_keys].masked_fill(is_hidden, 0)
    return visible_mean / visible_mean.sum(dim=-1, keepdim=True).clamp(
        min=torch.finfo(visible_mean.dtype).tiny
    )
