"""Share of right answers."""

from jaxtyping import Float, Int
from torch import Tensor


def accuracy(
    logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"]
) -> Float[Tensor, "batch label"]:
    """Give 1 where the likeliest output is the target, else 0 (the mean is over labels)."""
    return (logits.argmax(dim=-1) == targets).float()
