"""Which heads a model needs: the gradient of a gate, and what pruning in that order costs.

run = attnlab.load("pronoun-multihead")
found = importance(run.subject, run.dataset.splits["validation"])
order = sorted(found.heads, key=found.heads.__getitem__)             # least important first
pruning(run.model, order, lambda: run.evaluate("test")["accuracy"])  # the whole, then after each
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from attnlab.interp.attention import edit_attention
from attnlab.interp.interventions import Means, prune
from attnlab.interp.observe import undisturbed
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.split import IGNORE, Batch, Split

Measured = TypeVar("Measured")


class Importance(NamedTuple):
    """What a small change of each head's gate does to the loss."""

    loss: float
    """Of the whole model: nats, mean over the labels."""
    heads: dict[HeadRef, float]
    """The mean over examples of |d loss / d gate|, in nats (Michel et al. 2019, eq. 2)."""
    slopes: dict[HeadRef, float]
    """d loss / d gate, with its sign: a gate at 1 - e changes the loss by -e times this."""

    @property
    def normalised(self) -> dict[HeadRef, float]:
        """The importance as a share of its layer's l2 norm (Michel et al. 2019, sec. 4.1).

        They prune by it. It forgets that one layer matters more than another: with two layers on
        `pronoun` and three seeds, its rank correlation with the loss without each head was -.1 to
        .5, and that of the importance itself .6 to 1.
        """
        squares: dict[int, float] = {}
        for head, value in self.heads.items():
            squares[head.layer] = squares.get(head.layer, 0.0) + value**2
        return {
            head: value / squares[head.layer] ** 0.5 if value else 0.0
            for head, value in self.heads.items()
        }


def importance(subject: Subject, batches: Split | Iterable[Batch]) -> Importance:
    """Derive the loss by a gate on each head, at gate 1 (Michel et al. 2019, eq. 2).

    A gate multiplies a head's pattern, and so its output, theirs; each example has gates of its
    own, so that the mean is of absolute values. An example's loss is the sum over its labels, and
    the mean is by label, as everywhere here; with one label each it is theirs. It is first order:
    of a head whose help another one would give it says too much, and where the loss is flat at 1
    but not on the way to 0, too little. Training is bit-equal with and without it.
    """
    layers = subject.model.attention_layers()
    if not layers:
        raise LookupError("the model has no attention heads: there is none to gate")
    absolute: dict[AttentionLayer, Tensor] = {}
    signed: dict[AttentionLayer, Tensor] = {}
    loss, labels = 0.0, 0
    for asked in subject.ask(batches):
        summed, gradients = _derived(subject, asked, layers)
        loss += summed
        labels += int((asked.targets != IGNORE).sum())
        for layer, gradient in gradients.items():
            absolute[layer] = absolute.get(layer, 0) + gradient.abs().sum(dim=0)
            signed[layer] = signed.get(layer, 0) + gradient.sum(dim=0)
    if not labels:
        raise ValueError("no label was asked for; an importance needs at least one")

    def by_head(sums: dict[AttentionLayer, Tensor]) -> dict[HeadRef, float]:
        return {
            head: value / labels
            for layer in layers
            for head, value in zip(layer.heads, sums[layer].tolist(), strict=True)
        }

    return Importance(loss / labels, by_head(absolute), by_head(signed))


def pruning(
    model: Model,
    order: Sequence[HeadRef],
    measure: Callable[[], Measured],
    means: Means | None = None,
) -> list[Measured]:
    """Measure the whole model, then after each removal of one more head (Michel et al., fig. 3)."""
    measured = []
    for removed in range(len(order) + 1):
        with prune(model, order[:removed], means):
            measured.append(measure())
    return measured


def alone(
    model: Model,
    candidates: Collection[HeadRef],
    loss: Callable[[], float],
    means: Means | None = None,
) -> dict[HeadRef, float]:
    """Measure the loss without each head by itself."""
    losses = {}
    for head in candidates:
        with prune(model, [head], means):
            losses[head] = loss()
    return losses


def shuffled(candidates: Collection[HeadRef], seed: int) -> list[HeadRef]:
    """Order heads by chance, the same for the same seed: what any other order is held against."""
    return random.Random(seed).sample(list(candidates), len(candidates))


def greedy(
    model: Model,
    candidates: Collection[HeadRef],
    loss: Callable[[], float],
    means: Means | None = None,
) -> list[HeadRef]:
    """Order heads by what the loss can spare most, given those that are gone already.

    Takes n (n + 1) / 2 measurements of n heads.
    """
    order: list[HeadRef] = []
    while left := [head for head in candidates if head not in order]:
        losses = []
        for head in left:
            with prune(model, [*order, head], means):
                losses.append(loss())
        order.append(left[losses.index(min(losses))])
    return order


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Say how alike two orders are, from -1 to 1 (Spearman 1904); None if one has no order."""
    ranks = torch.from_numpy(rankdata([one, other], axis=1))
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    norms = ranks.norm(dim=1)
    return None if (norms == 0).any() else float(ranks[0] @ ranks[1] / norms.prod())


def _derived(
    subject: Subject, asked: Batch, layers: Sequence[AttentionLayer]
) -> tuple[float, dict[AttentionLayer, Float[Tensor, "batch head"]]]:
    """Give the summed loss of a batch, and its derivative by each gate of each example."""
    model = subject.model
    gates: dict[AttentionLayer, Tensor] = {}

    def gated(layer: AttentionLayer, pattern: Tensor) -> Tensor:
        if layer not in gates:
            dtype = torch.promote_types(pattern.dtype, torch.float32)
            gates[layer] = pattern.new_ones(pattern.shape[:2], dtype=dtype).requires_grad_()
        return pattern * rearrange(gates[layer], "b h -> b h 1 1").to(pattern)

    # cuDNN's LSTM has no backward pass in evaluation mode.
    flags = torch.backends.cudnn.flags(enabled=False)
    with undisturbed(model), torch.enable_grad(), flags, subject.precision():
        with edit_attention(model, "pattern", layers, gated):
            logits, _ = model(*asked.given)
        if missing := [layer.path for layer in layers if layer not in gates]:
            raise RuntimeError(f"{', '.join(missing)} heard nothing; run the eager model")
        loss = subject.objective.loss(logits, asked.targets, "sum")
        gradients = torch.autograd.grad(loss, [gates[layer] for layer in layers])
    by_layer = {layer: g.double() for layer, g in zip(layers, gradients, strict=True)}
    return float(loss.detach()), by_layer
