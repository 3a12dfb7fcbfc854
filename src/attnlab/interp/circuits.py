"""Heads in combination: effective rank, attention rollout and OV weights."""

from collections.abc import Sequence

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from attnlab.mixer.base import GroupedAttention


def gram_matrix(
    pattern: Float[Tensor, "batch head query key"], counted: Bool[Tensor, "batch query"]
) -> Float[Tensor, "batch head key other"]:
    """Return A^T A (float64) of the counted rows of each pattern A; parts of the rows add up."""
    rows = pattern.double() * rearrange(counted, "b q -> b 1 q 1")
    return einsum(rows, rows, "b h q k, b h q other -> b h k other")


def effective_rank(gram: Float[Tensor, "batch head key other"]) -> Float[Tensor, "batch head"]:
    """Compute exp of the entropy of the normalised singular values (Roy & Vetterli 2007, def. 2).

    From 1 (all rows are multiples of one) to the number of rows, as for the identity. Singular
    values are the roots of the eigenvalues of `gram`; those within rounding error count as 0.
    """
    eigenvalues = torch.linalg.eigvalsh(gram.double())
    rounding_error = torch.finfo(eigenvalues.dtype).eps * gram.shape[-1]
    is_nonzero = eigenvalues > rounding_error * eigenvalues.amax(dim=-1, keepdim=True)
    singular_values = eigenvalues.where(is_nonzero, 0).sqrt()
    shares = singular_values / singular_values.sum(dim=-1, keepdim=True).clamp(min=rounding_error)
    return torch.special.entr(shares).sum(dim=-1).exp().float()


def rollout(
    patterns: Sequence[Float[Tensor, "batch _ seq seq"]],
) -> Float[Tensor, "batch layer seq seq"]:
    """Compute the attention rollout: the share of each input in each position after every layer.

    (A + I) / 2 of the heads' mean A, multiplied from the lowest layer up (Abnar & Zuidema 2020,
    sec. 3). A row sums to 1. It ignores values, projections and feed-forward networks.
    """
    contributions, rollouts = None, []
    for pattern in patterns:
        mean = reduce(pattern.float(), "b h q k -> b q k", "mean")
        with_residual = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        contributions = with_residual if contributions is None else with_residual @ contributions
        rollouts.append(contributions)
    if not rollouts:
        raise ValueError("no patterns were given; a rollout needs those of at least one layer")
    return torch.stack(rollouts, dim=1)


def value_and_output_weights(
    mixer: GroupedAttention,
) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "head d_model d_head"]]:
    """Return the value and output weights by head; a value that heads share is repeated."""
    value_weight = mixer.query_key_value.weight.detach()[-mixer.widths[2] :]
    value_weight = rearrange(value_weight, "(h d) m -> h d m", d=mixer.d_head)
    value_weight = value_weight.repeat_interleave(mixer.num_heads // len(value_weight), dim=0)
    output_weight = rearrange(mixer.output.weight.detach(), "m (h d) -> h m d", d=mixer.d_head)
    return value_weight, output_weight
