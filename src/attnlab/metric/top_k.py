"""Share of targets among the k likeliest outputs."""

from jaxtyping import Float, Int
from torch import Tensor


def top_k(
    logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"], *, k: int = 5
) -> Float[Tensor, "batch label"]:
    """Give 1 where fewer than k outputs are likelier than the target, else 0."""
    score = logits.gather(-1, targets.clamp(min=0).unsqueeze(-1))
    return ((logits > score).sum(dim=-1) < k).float()
