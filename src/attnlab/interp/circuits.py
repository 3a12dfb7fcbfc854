"""What heads do together: over layers, over weights, over steps."""

from collections.abc import Sequence

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from attnlab.mixer.base import Heads


def gram(
    pattern: Float[Tensor, "batch head query key"], counted: Bool[Tensor, "batch query"]
) -> Float[Tensor, "batch head key other"]:
    """Give A^T A (float64) of the counted rows of each pattern A; it adds up over parts of them."""
    rows = pattern.double() * rearrange(counted, "b q -> b 1 q 1")
    return einsum(rows, rows, "b h q k, b h q other -> b h k other")


def effective_rank(gram: Float[Tensor, "batch head key other"]) -> Float[Tensor, "batch head"]:
    """Give exp of the entropy of the singular values over their sum (Roy & Vetterli 2007, def. 2).

    From 1 (all rows are multiples of one) to the number of rows, which the identity has. Singular
    values are the roots of the eigenvalues of `gram`; what is but rounding counts as 0.
    """
    eigenvalues = torch.linalg.eigvalsh(gram.double())
    rounding = torch.finfo(eigenvalues.dtype).eps * gram.shape[-1]
    kept = eigenvalues > rounding * eigenvalues.amax(dim=-1, keepdim=True)
    singular = eigenvalues.where(kept, 0).sqrt()
    shares = singular / singular.sum(dim=-1, keepdim=True).clamp(min=rounding)
    return torch.special.entr(shares).sum(dim=-1).exp().float()


def rollout(
    patterns: Sequence[Float[Tensor, "batch _ seq seq"]],
) -> Float[Tensor, "batch layer seq seq"]:
    """Give how much of each input is in each position after every layer, if all were attention.

    (A + I) / 2 of the heads' mean A, multiplied from the lowest layer up (Abnar & Zuidema 2020,
    sec. 3). A row sums to 1. It leaves out values, projections and feed-forward networks.
    """
    reached, layers = None, []
    for pattern in patterns:
        mean = reduce(pattern.float(), "b h q k -> b q k", "mean")
        through = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        reached = through if reached is None else through @ reached
        layers.append(reached)
    if not layers:
        raise ValueError("no patterns were given; a rollout needs those of at least one layer")
    return torch.stack(layers, dim=1)


def values_and_outputs(
    mixer: Heads,
) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "head d_model d_head"]]:
    """Part the weights of values and output by head; a value that heads share stands for each."""
    value = mixer.query_key_value.weight.detach()[-mixer.widths[2] :]
    value = rearrange(value, "(h d) m -> h d m", d=mixer.d_head)
    value = value.repeat_interleave(mixer.num_heads // len(value), dim=0)
    output = rearrange(mixer.output.weight.detach(), "m (h d) -> h m d", d=mixer.d_head)
    return value, output


def emergence(steps: Sequence[int], scores: Sequence[float], threshold: float) -> int | None:
    """Give the first recorded step from which on a score stays above the threshold; None if none.

    A score that falls back later has not emerged before. Steps ascend.
    """
    if len(steps) != len(scores) or list(steps) != sorted(steps):
        raise ValueError(f"{len(scores)} scores need as many steps, in order; got {list(steps)}")
    found = None
    for step, score in zip(reversed(steps), reversed(scores), strict=True):
        if not score > threshold:
            break
        found = step
    return found
