"""What a head moves: the weight times the length of what it carries, and not the weight alone.

run = attnlab.load("pronoun-multihead")
asked = run.objective.ask(run.dataset.splits["validation"][:64])
for layer, norms in weighted_norms(run.subject, asked).items():
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
from attnlab.interp.attention import attend_of, record_patterns
from attnlab.interp.circuits import values_and_outputs
from attnlab.interp.sequences import valid_of
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer
from attnlab.mixer.base import Heads
from attnlab.split import Batch


class Norms(NamedTuple):
    """The lengths of what each query gets from each key, and how they stand to the weights."""

    raw: Float[Tensor, "batch head query key"]
    """|a_qk f(x_k)|, in the units of the residual stream."""
    pattern: Float[Tensor, "batch head query key"]
    """a_qk, the weights."""

    @property
    def shares(self) -> Float[Tensor, "batch head query key"]:
        """The lengths over their sum in each row, which is then 1 as that of the weights is."""
        total = self.raw.sum(dim=-1, keepdim=True)
        return self.raw / total.clamp(min=torch.finfo(total.dtype).tiny)

    @property
    def agreement(self) -> Float[Tensor, " head"]:
        """The mean over queries of Spearman's correlation of lengths and weights, -1 to 1.

        Over the keys that a query sees, which are those with a weight; a query that orders none
        (it sees one, or all alike) is left out, and so is all padding. NaN where none is left.
        """
        return _agreement(self.pattern, self.raw)


def weighted_norms(subject: Subject, asked: Batch) -> dict[AttentionLayer, Norms]:
    """Measure |a_qk f(x_k)| in every layer whose mixer has `Heads` (Kobayashi et al. 2020, eq. 5).

    Our f(x_k) = v_k W_O^h is what head h makes of a key, value bias included, so that the sum over
    heads and keys is the mixer's output without its bias. Rows of queries that are padding are 0.
    In float32. Raises LookupError for a model without such a layer.
    """
    model = subject.model
    mixers = {m.attend: m for m in model.modules() if isinstance(m, Heads)}
    by_layer = {
        layer: mixers[attend]
        for layer in model.attention_layers()
        if (attend := attend_of(model, layer)) in mixers
    }
    if not by_layer:
        raise LookupError("no mixer of the model has `Heads`: no head has values of its own width")
    with subject.observed(), _values(by_layer) as values, record_patterns(model) as patterns:
        model(*asked.given)
    norms = {}
    for layer, mixer in by_layer.items():
        pattern = patterns[layer].float()
        real = valid_of(layer.axes.queries, asked, pattern.shape[2])
        pattern = pattern * rearrange(real, "b q -> b 1 q 1")
        carried = transformed(values[layer].float(), values_and_outputs(mixer)[1].float())
        lengths = carried.norm(dim=-1)
        norms[layer] = Norms(einsum(pattern, lengths, "b h q k, b h k -> b h q k"), pattern)
    return norms


def transformed(
    value: Float[Tensor, "batch value_head key d_head"],
    output: Float[Tensor, "head d_model d_head"],
) -> Float[Tensor, "batch head key d_model"]:
    """Give f(x_k) = v_k W_O^h; a value that several heads share is read by each."""
    value = repeat(value, "b h k d -> b (h shared) k d", shared=len(output) // value.shape[1])
    return einsum(value, output, "b h k d, h m d -> b h k m")


@contextmanager
def _values(mixers: dict[AttentionLayer, Heads]) -> Iterator[dict[AttentionLayer, Tensor]]:
    """Collect the values that each layer is given."""
    values: dict[AttentionLayer, Tensor] = {}

    def hook(layer: AttentionLayer) -> Callable[[Attend, tuple[Tensor, ...]], None]:
        return lambda _attend, given: values.__setitem__(layer, given[2].detach())

    handles = [m.attend.register_forward_pre_hook(hook(layer)) for layer, m in mixers.items()]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()


def _agreement(
    weights: Float[Tensor, "batch head query key"], lengths: Float[Tensor, "batch head query key"]
) -> Float[Tensor, " head"]:
    """Correlate the ranks of each row, in float64; equal values share a rank."""
    seen = (weights > 0).cpu().numpy()
    ranks = []
    for values in (weights, lengths):
        among = np.where(seen, values.cpu().numpy(), np.nan)
        ranked = np.nan_to_num(rankdata(among, axis=-1, nan_policy="omit"))
        count = np.maximum(seen.sum(axis=-1, keepdims=True), 1)
        ranks.append(np.where(seen, ranked - ranked.sum(axis=-1, keepdims=True) / count, 0))
    both = (ranks[0] * ranks[1]).sum(axis=-1)
    sizes = np.sqrt((ranks[0] ** 2).sum(axis=-1) * (ranks[1] ** 2).sum(axis=-1))
    ordered = sizes > 0
    total = np.where(ordered, both / np.where(ordered, sizes, 1), 0).sum(axis=(0, 2))
    number = ordered.sum(axis=(0, 2))
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return torch.from_numpy(mean).float().to(weights.device)
