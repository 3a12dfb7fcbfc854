"""Share of targets among the k likeliest outputs."""

from jaxtyping import Float, Int
from torch import Tensor

from attnlab.ranges import Count, ranged


@ranged
def top_k(
    logits: Float[Tensor, "batch label output"],
    targets: Int[Tensor, "batch label"],
    *,
    k: Count = 5,
) -> Float[Tensor, "batch label"]:
    """Return 1 where fewer than k other outputs are as likely as the target or likelier, else 0.

    So a tie is no hit, as for a model that says nothing, and neither is a target that is no number.
    """
    score = logits.gather(-1, targets.clamp(min=0).unsqueeze(-1))
    # The target is one of those that are not less likely, unless it is no number.
    rank = (~(logits < score)).sum(dim=-1)
    return ((rank <= k) & ~score.squeeze(-1).isnan()).float()
