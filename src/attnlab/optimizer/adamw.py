"""Adam with decoupled weight decay."""

import torch
from torch import nn

from attnlab.optimizer.base import Optimizer
from attnlab.ranges import NotNegative, Positive, ShareBelowOne, ranged


@ranged
class AdamW(Optimizer):
    """Decays matrices and embeddings, not biases and norms (Loshchilov & Hutter 2019, alg. 2).

    What has two axes and is no matrix (vectors side by side, a table of biases) is named by its
    module in `undecayed`, and left alone too.

    `gradient_clip` bounds the global norm of the gradient (Pascanu et al. 2013); null leaves it.
    """

    def __init__(
        self,
        *,
        lr: Positive = 2e-3,
        beta1: ShareBelowOne = 0.9,
        beta2: ShareBelowOne = 0.98,
        eps: Positive = 1e-8,
        weight_decay: NotNegative = 0.1,
        gradient_clip: Positive | None = 1.0,
    ) -> None:
        super().__init__(lr, gradient_clip)
        self.betas, self.eps, self.weight_decay = (beta1, beta2), eps, weight_decay

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        undecayed = {
            f"{path}.{name}" if path else name
            for path, module in model.named_modules()
            for name in getattr(module, "undecayed", ())
        }
        decayed, not_decayed = [], []
        for name, weights in model.named_parameters():
            decays = weights.ndim > 1 and not name.endswith("bias") and name not in undecayed
            (decayed if decays else not_decayed).append(weights)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": not_decayed, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)
