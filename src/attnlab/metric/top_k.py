"""Share of targets among the k likeliest outputs."""

from jaxtyping import Float, Int
from torch import Tensor

from attnlab.metric.base import bounded
from attnlab.ranges import Count, ranged


@bounded(0, 1)
@ranged
def top_k(
    logits: Float[Tensor, "batch label output"],
    targets: Int[Tensor, "batch label"],
    *,
    k: Count = 5,
) -> Float[Tensor, "batch label"]:
    """Return 1 where fewer than k other outputs are as likely as the target or likelier, else 0.

    So a tie, as between a model's equal logits for all outputs, is no hit; nor is a target whose
    logit is nan.
    """
    target_logit = logits.gather(-1, targets.clamp(min=0).unsqueeze(-1))
    # The target itself is one of the outputs that are not less likely, unless its logit is nan.
    rank = (~(logits < target_logit)).sum(dim=-1)
    return ((rank <= k) & ~target_logit.squeeze(-1).isnan()).float()
