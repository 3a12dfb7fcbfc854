"""Importance of heads: the gradient of a gate, and the cost of pruning in that order.

run = attnlab.load("pronoun-multihead")
by_head = head_importance(run.subject, run.dataset.splits["validation"]).heads
order = sorted(by_head, key=by_head.__getitem__)                     # least important first
prune_in_order(run.model, order, lambda: run.evaluate("test")["accuracy"])  # after each removal
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from attnlab.interp.attention_taps import edit_attention
from attnlab.interp.interventions import MeanPatterns, prune
from attnlab.interp.observe import isolated_evaluation
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.split import IGNORE, Batch, Split

Measurement = TypeVar("Measurement")


class Importance(NamedTuple):
    """The effect of a small change of each head's gate on the loss."""

    loss: float
    """The loss of the unchanged model: nats, mean over the labels."""
    heads: dict[HeadRef, float]
    """The mean over examples of |d loss / d gate|, in nats (Michel et al. 2019, eq. 2)."""
    slopes: dict[HeadRef, float]
    """d loss / d gate, with its sign: a gate at 1 - e changes the loss by -e times this."""

    @property
    def normalised_heads(self) -> dict[HeadRef, float]:
        """The importance over the l2 norm of its layer (Michel et al. 2019, sec. 4.1).

        They prune by it. It hides that one layer matters more than another: with two layers on
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


def head_importance(subject: Subject, batches: Split | Iterable[Batch]) -> Importance:
    """Compute the derivative of the loss by a gate on each head, at gate 1 (Michel et al., eq. 2).

    A gate multiplies a head's pattern, and so its output, as in Michel et al. (2019); each example
    has gates of its own, so the mean is of absolute values. An example's loss is the sum over its
    labels, and the mean is over labels, as everywhere here; with one label per example it is that
    of the paper. The derivative is first order: it overstates a head that another head would
    replace, and understates one where the loss is flat at gate 1 but not on the way to 0. Training
    is bit-equal with and without it.
    """
    layers = subject.model.attention_layers()
    if not layers:
        raise LookupError("the model has no attention heads: there is none to gate")
    absolute_sums: dict[AttentionLayer, Tensor] = {}
    signed_sums: dict[AttentionLayer, Tensor] = {}
    loss, num_labels = 0.0, 0
    for batch in subject.batches(batches):
        batch_loss, gradients = _differentiate_gates(subject, batch, layers)
        loss += batch_loss
        num_labels += int((batch.targets != IGNORE).sum())
        for layer, gradient in gradients.items():
            absolute_sums[layer] = absolute_sums.get(layer, 0) + gradient.abs().sum(dim=0)
            signed_sums[layer] = signed_sums.get(layer, 0) + gradient.sum(dim=0)
    if not num_labels:
        raise ValueError("no label was asked for; an importance needs at least one")

    def mean_by_head(sums: dict[AttentionLayer, Tensor]) -> dict[HeadRef, float]:
        return {
            head: value / num_labels
            for layer in layers
            for head, value in zip(layer.heads, sums[layer].tolist(), strict=True)
        }

    return Importance(loss / num_labels, mean_by_head(absolute_sums), mean_by_head(signed_sums))


def prune_in_order(
    model: Model,
    order: Sequence[HeadRef],
    measure: Callable[[], Measurement],
    means: MeanPatterns | None = None,
) -> list[Measurement]:
    """Return the measure of the model, then after each further removal (Michel et al., fig. 3)."""
    measurements = []
    for num_removed in range(len(order) + 1):
        with prune(model, order[:num_removed], means):
            measurements.append(measure())
    return measurements


def loss_without_each(
    model: Model,
    candidates: Collection[HeadRef],
    loss: Callable[[], float],
    means: MeanPatterns | None = None,
) -> dict[HeadRef, float]:
    """Return the loss without each single head."""
    losses = {}
    for head in candidates:
        with prune(model, [head], means):
            losses[head] = loss()
    return losses


def shuffle_heads(candidates: Collection[HeadRef], seed: int) -> list[HeadRef]:
    """Return heads in a random order of the seed, the baseline for any other order."""
    return random.Random(seed).sample(list(candidates), len(candidates))


def order_greedily(
    model: Model,
    candidates: Collection[HeadRef],
    loss: Callable[[], float],
    means: MeanPatterns | None = None,
) -> list[HeadRef]:
    """Return heads in greedy order: next is the head whose removal leaves the lowest loss.

    Takes n (n + 1) / 2 measurements of n heads.
    """
    order: list[HeadRef] = []
    while remaining := [head for head in candidates if head not in order]:
        losses = []
        for head in remaining:
            with prune(model, [*order, head], means):
                losses.append(loss())
        order.append(remaining[losses.index(min(losses))])
    return order


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation (1904), -1 to 1; None if all values of one are equal."""
    ranks = torch.from_numpy(rankdata([first, second], axis=1))
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    norms = ranks.norm(dim=1)
    return None if (norms == 0).any() else float(ranks[0] @ ranks[1] / norms.prod())


def _differentiate_gates(
    subject: Subject, batch: Batch, layers: Sequence[AttentionLayer]
) -> tuple[float, dict[AttentionLayer, Float[Tensor, "batch head"]]]:
    """Return the summed loss of a batch, and its derivative by each gate of each example."""
    model = subject.model
    gates: dict[AttentionLayer, Tensor] = {}

    def apply_gate(layer: AttentionLayer, pattern: Tensor) -> Tensor:
        if layer not in gates:
            dtype = torch.promote_types(pattern.dtype, torch.float32)
            gates[layer] = pattern.new_ones(pattern.shape[:2], dtype=dtype).requires_grad_()
        return pattern * rearrange(gates[layer], "b h -> b h 1 1").to(pattern)

    # cuDNN's LSTM has no backward pass in evaluation mode.
    cudnn_flags = torch.backends.cudnn.flags(enabled=False)
    with isolated_evaluation(model), torch.enable_grad(), cudnn_flags, subject.precision():
        with edit_attention(model, "pattern", layers, apply_gate):
            logits, _ = model(*batch.model_inputs)
        if silent_layers := [layer.path for layer in layers if layer not in gates]:
            raise RuntimeError(f"{', '.join(silent_layers)} heard nothing; run the eager model")
        loss = subject.objective.loss(logits, batch.targets, "sum")
        gradients = torch.autograd.grad(loss, [gates[layer] for layer in layers])
    gradients_by_layer = {
        layer: gradient.double() for layer, gradient in zip(layers, gradients, strict=True)
    }
    return float(loss.detach()), gradients_by_layer
