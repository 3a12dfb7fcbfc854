"""Share of right answers."""

from jaxtyping import Float, Int
from torch import Tensor

from attnlab.metric.base import bounded, likeliest_outputs


@bounded(0, 1)
def accuracy(
    logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"]
) -> Float[Tensor, "batch label"]:
    """Return 1 where the likeliest output is the target, else 0 (the mean is over labels)."""
    return (likeliest_outputs(logits) == targets).float()
