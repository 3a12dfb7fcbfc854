"""Which heads a model needs: the gradient of a gate, and what pruning in that order costs.

run = attnlab.load("pronoun-multihead")
asked = questions(run.model, run.objective, run.dataset.splits["validation"])
found = importance(run.model, run.objective, asked, run.precision)
order = sorted(found.heads, key=found.heads.__getitem__)             # least important first
pruning(run.model, order, lambda: run.evaluate("test")["accuracy"])  # the whole, then after each
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from attnlab.evidence.base import undisturbed
from attnlab.evidence.intervene import Head, Means, attention_layers, prune
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import IGNORE, Batch
from attnlab.tap import edit

Measured = TypeVar("Measured")


class Importance(NamedTuple):
    """What a small change of each head's gate does to the loss."""

    loss: float
    """Of the whole model: nats, mean over the labels."""
    heads: dict[Head, float]
    """The mean over examples of |d loss / d gate|, in nats (Michel et al. 2019, eq. 2)."""
    slopes: dict[Head, float]
    """d loss / d gate, with its sign: a gate at 1 - e changes the loss by -e times this."""

    @property
    def normalised(self) -> dict[Head, float]:
        """The importance as a share of its layer's l2 norm (Michel et al. 2019, sec. 4.1).

        They prune by it. It forgets that one layer matters more than another: with two layers on
        `pronoun` and three seeds, its rank correlation with the loss without each head was -.1 to
        .5, and that of the importance itself .6 to 1.
        """
        squares: dict[int, float] = {}
        for (layer, _), value in self.heads.items():
            squares[layer] = squares.get(layer, 0.0) + value**2
        return {
            head: value / squares[head[0]] ** 0.5 if value else 0.0
            for head, value in self.heads.items()
        }


def importance(
    model: Model,
    objective: Objective,
    asked: Iterable[Batch],
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> Importance:
    """Derive the loss by a gate on each head, at gate 1 (Michel et al. 2019, eq. 2).

    A gate multiplies a head's pattern, and so its output, theirs; each example has gates of its
    own, so that the mean is of absolute values. An example's loss is the sum over its labels, and
    the mean is by label, as everywhere here; with one label each it is theirs. It is first order:
    of a head whose help another one would give it says too much, and where the loss is flat at 1
    but not on the way to 0, too little. Training is bit-equal with and without it.
    """
    names = [f"{name}.pattern" for name in attention_layers(model)]
    if not names:
        raise LookupError("the model has no attention heads: there is none to gate")
    absolute: dict[str, Tensor] = {}
    signed: dict[str, Tensor] = {}
    loss, labels = 0.0, 0
    for batch in asked:
        summed, gradients = _derived(model, objective, batch, names, precision)
        loss += summed
        labels += int((batch.targets != IGNORE).sum())
        for name, gradient in gradients.items():
            absolute[name] = absolute.get(name, 0) + gradient.abs().sum(dim=0)
            signed[name] = signed.get(name, 0) + gradient.sum(dim=0)
    if not labels:
        raise ValueError("no label was asked for; an importance needs at least one")

    def by_head(sums: dict[str, Tensor]) -> dict[Head, float]:
        return {
            (layer, head): value / labels
            for layer, name in enumerate(names)
            for head, value in enumerate(sums[name].tolist())
        }

    return Importance(loss / labels, by_head(absolute), by_head(signed))


def pruning(
    model: Model,
    order: Sequence[Head],
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
    candidates: Collection[Head],
    loss: Callable[[], float],
    means: Means | None = None,
) -> dict[Head, float]:
    """Measure the loss without each head by itself."""
    losses = {}
    for head in candidates:
        with prune(model, [head], means):
            losses[head] = loss()
    return losses


def shuffled(candidates: Collection[Head], seed: int) -> list[Head]:
    """Order heads by chance, the same for the same seed: what any other order is held against."""
    return random.Random(seed).sample(list(candidates), len(candidates))


def greedy(
    model: Model,
    candidates: Collection[Head],
    loss: Callable[[], float],
    means: Means | None = None,
) -> list[Head]:
    """Order heads by what the loss can spare most, given those that are gone already.

    Takes n (n + 1) / 2 measurements of n heads.
    """
    order: list[Head] = []
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
    model: Model,
    objective: Objective,
    asked: Batch,
    names: Sequence[str],
    precision: Callable[[], AbstractContextManager],
) -> tuple[float, dict[str, Float[Tensor, "batch head"]]]:
    """Give the summed loss of a batch, and its derivative by each gate of each example."""
    gates: dict[str, Tensor] = {}

    def gated(name: str, pattern: Tensor) -> Tensor:
        if name not in gates:
            dtype = torch.promote_types(pattern.dtype, torch.float32)
            gates[name] = pattern.new_ones(pattern.shape[:2], dtype=dtype).requires_grad_()
        return pattern * rearrange(gates[name], "b h -> b h 1 1").to(pattern)

    # cuDNN's LSTM has no backward pass in evaluation mode.
    flags = torch.backends.cudnn.flags(enabled=False)
    with undisturbed(model), torch.enable_grad(), flags, precision():
        with edit(model, "*.pattern", gated):
            logits, _ = model(*asked.given)
        if missing := set(names) - set(gates):
            raise RuntimeError(f"the taps {sorted(missing)} heard nothing; run the eager model")
        loss = objective.loss(logits, asked.targets, "sum")
        gradients = torch.autograd.grad(loss, [gates[name] for name in names])
    found = {name: g.double() for name, g in zip(names, gradients, strict=True)}
    return float(loss.detach()), found
