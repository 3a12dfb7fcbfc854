"""Share of sequences without a wrong answer."""

from jaxtyping import Float, Int
from torch import Tensor

from attnlab.metric.base import bounded, likeliest_outputs
from attnlab.split import IGNORE


@bounded(0, 1)
def sequence_accuracy(
    logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"]
) -> Float[Tensor, " batch"]:
    """Return 1 where every label of a sequence is right, else 0 (the mean is over sequences)."""
    is_right = (likeliest_outputs(logits) == targets) | (targets == IGNORE)
    return is_right.all(dim=1).float()
