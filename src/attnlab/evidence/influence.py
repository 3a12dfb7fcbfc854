"""What the answer hangs on, for any model: gradient times input."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.model.base import Model
from attnlab.split import Batch
from attnlab.tap import edit


def influence(
    model: Model, asked: Batch
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Give the logits, and the share of each token in the last answer: |gradient x input|.

    The gradient is that of the likeliest output's logit by a token's embedding vector, times that
    vector, summed over its dimensions (Shrikumar et al. 2016; Denil et al. 2014, sec. 4). Shares
    are of absolute values and sum to 1; where no token has any, all are 0. They show what a small
    change would do, not what leaving a token out does.
    """
    vectors: list[Tensor] = []

    def watch(_name: str, value: Tensor) -> Tensor:
        vectors.append(value.detach().requires_grad_())
        return vectors[0]

    # cuDNN's LSTM has no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        with edit(model, "embedded", watch):
            logits, _ = model(*asked.given)
        best = logits[:, -1].amax(dim=-1).sum()
        (gradient,) = torch.autograd.grad(best, vectors[0])
    shares = reduce((gradient * vectors[0].detach()).float(), "b s d -> b s", "sum").abs()
    total = shares.sum(dim=1, keepdim=True)
    return logits.detach(), shares / total.clamp(min=torch.finfo(shares.dtype).tiny)
