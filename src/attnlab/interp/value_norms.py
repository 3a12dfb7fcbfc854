"""Norm-based attention analysis: the weight times the norm of the transformed value.

run = attnlab.load("pronoun-multihead")
batch = run.objective.training_batch(run.dataset.splits["validation"][:64])
for layer, norms in weighted_norms(run.subject, batch).items():
    print(layer.name, norms.raw.shape, norms.agreement)  # (batch, head, query, key), (head,)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from attnlab.attend import Attend
from attnlab.interp.attention_taps import attend_module, record_patterns
from attnlab.interp.circuits import value_and_output_weights
from attnlab.interp.sequences import sequence_valid
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer
from attnlab.mixer.base import GroupedAttention
from attnlab.split import Batch


class Norms(NamedTuple):
    """The norms of the vectors from each key to each query, and the attention weights."""

    raw: Float[Tensor, "batch head query key"]
    """|a_qk f(x_k)|, in the units of the residual stream."""
    pattern: Float[Tensor, "batch head query key"]
    """a_qk, the weights."""

    @property
    def shares(self) -> Float[Tensor, "batch head query key"]:
        """The norms over the sum of their row, so that a row sums to 1 as that of the weights."""
        total = self.raw.sum(dim=-1, keepdim=True)
        return self.raw / total.clamp(min=torch.finfo(total.dtype).tiny)

    @property
    def agreement(self) -> Float[Tensor, " head"]:
        """The mean over queries of Spearman's correlation of norms and weights, -1 to 1.

        Over the keys that a query sees, which are those with a weight. A query without an order of
        keys (it sees one, or all are equal) is left out, and so is padding. NaN if none remains.
        """
        return _correlate_ranks(self.pattern, self.raw)


def weighted_norms(subject: Subject, batch: Batch) -> dict[AttentionLayer, Norms]:
    """Compute |a_qk f(x_k)| in every layer of `GroupedAttention` (Kobayashi et al. 2020, eq. 5).

    Our f(x_k) = v_k W_O^h is the output of head h for a key, value bias included, so the sum over
    heads and keys is the mixer's output without its bias. Rows of queries that are padding are 0.
    All in float32. Raises LookupError for a model without such a layer.
    """
    model = subject.model
    mixer_by_attend = {
        module.attend: module for module in model.modules() if isinstance(module, GroupedAttention)
    }
    mixer_by_layer = {
        layer: mixer_by_attend[attend]
        for layer in model.attention_layers()
        if (attend := attend_module(model, layer)) in mixer_by_attend
    }
    if not mixer_by_layer:
        raise LookupError(
            "no mixer of the model is a `GroupedAttention`: no head has values of its own width"
        )
    with (
        subject.observed(),
        _record_values(mixer_by_layer) as values,
        record_patterns(model) as patterns,
    ):
        model(*batch.model_inputs)
    norms_by_layer = {}
    for layer, mixer in mixer_by_layer.items():
        is_token = sequence_valid(layer.axes.queries, batch, patterns[layer].shape[2])
        pattern = patterns[layer].float() * rearrange(is_token, "b q -> b 1 q 1")
        _, output_weight = value_and_output_weights(mixer)
        head_outputs = transform_values(values[layer].float(), output_weight.float())
        output_norms = head_outputs.norm(dim=-1)
        norms_by_layer[layer] = Norms(
            einsum(pattern, output_norms, "b h q k, b h k -> b h q k"), pattern
        )
    return norms_by_layer


def transform_values(
    value: Float[Tensor, "batch value_head key d_head"],
    output_weight: Float[Tensor, "head d_model d_head"],
) -> Float[Tensor, "batch head key d_model"]:
    """Return f(x_k) = v_k W_O^h; a value that several heads share is repeated for each."""
    num_sharing = len(output_weight) // value.shape[1]
    value = repeat(value, "b h k d -> b (h shared) k d", shared=num_sharing)
    return einsum(value, output_weight, "b h k d, h m d -> b h k m")


@contextmanager
def _record_values(
    mixer_by_layer: dict[AttentionLayer, GroupedAttention],
) -> Iterator[dict[AttentionLayer, Tensor]]:
    """Record the values that each layer attends to."""
    values: dict[AttentionLayer, Tensor] = {}

    def build_hook(layer: AttentionLayer) -> Callable[[Attend, tuple[Tensor, ...]], None]:
        return lambda _attend, inputs: values.__setitem__(layer, inputs[2].detach())

    handles = [
        mixer.attend.register_forward_pre_hook(build_hook(layer))
        for layer, mixer in mixer_by_layer.items()
    ]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()


def _correlate_ranks(
    weights: Float[Tensor, "batch head query key"],
    weighted_norms: Float[Tensor, "batch head query key"],
) -> Float[Tensor, " head"]:
    """Return the mean rank correlation of rows, in float64; equal values share a rank."""
    is_visible = (weights > 0).cpu().numpy()
    centred_ranks = []
    for values in (weights, weighted_norms):
        visible_values = np.where(is_visible, values.cpu().numpy(), np.nan)
        row_ranks = np.nan_to_num(rankdata(visible_values, axis=-1, nan_policy="omit"))
        num_visible = np.maximum(is_visible.sum(axis=-1, keepdims=True), 1)
        mean_ranks = row_ranks.sum(axis=-1, keepdims=True) / num_visible
        centred_ranks.append(np.where(is_visible, row_ranks - mean_ranks, 0))
    weight_ranks, weighted_norm_ranks = centred_ranks
    covariance = (weight_ranks * weighted_norm_ranks).sum(axis=-1)
    rank_length_product = np.sqrt(
        (weight_ranks**2).sum(axis=-1) * (weighted_norm_ranks**2).sum(axis=-1)
    )
    is_defined = rank_length_product > 0
    correlation_sum = np.where(
        is_defined, covariance / np.where(is_defined, rank_length_product, 1), 0
    ).sum(axis=(0, 2))
    num_queries = is_defined.sum(axis=(0, 2))
    mean_correlation = np.where(
        num_queries > 0, correlation_sum / np.maximum(num_queries, 1), np.nan
    )
    return torch.from_numpy(mean_correlation).float().to(weights.device)
