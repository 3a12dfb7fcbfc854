"""The initialisation of GPT-2."""

import torch
from torch import nn

from attnlab.init.base import Init

RESIDUAL = ("output", "contract")
"""What mixers and feed-forward networks call the projection into the residual stream."""


class GPT2(Init):
    """Draws every matrix from N(0, std) and sets biases to 0 (Radford et al. 2019, sec. 2.3).

    The two projections of each block into the residual stream are drawn with
    std / sqrt(2 x num_layers), so that their sum does not grow with depth. Scales of norms stay 1.
    """

    def __init__(self, *, std: float = 0.02) -> None:
        if std <= 0:
            raise ValueError(f"std={std} must be positive")
        self.std = std

    def __call__(self, model: nn.Module) -> None:
        blocks = getattr(model, "blocks", None)
        if blocks is None:
            raise ValueError(
                f"gpt2 is for blocks with a residual stream, and {type(model).__name__} has none; "
                "use init=default"
            )
        small = self.std * (2 * len(blocks)) ** -0.5
        norms = {id(p) for m in model.modules() if _is_norm(m) for p in m.parameters()}
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if weights.ndim > 1:
                    residual = name.startswith("blocks.") and set(name.split(".")) & {*RESIDUAL}
                    weights.normal_(std=small if residual else self.std)
                elif id(weights) not in norms:
                    weights.zero_()


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.RMSNorm))
