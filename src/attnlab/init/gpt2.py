"""The initialisation of GPT-2."""

import torch
from torch import nn

from attnlab.ffn.base import FFN
from attnlab.init.base import Init
from attnlab.ranges import Positive, ranged

RESIDUAL = ("output", "contract")
"""Names of the projection into the residual stream in mixers and feed-forward networks."""


@ranged
class GPT2(Init):
    """Draws weights from N(0, std) and sets their biases to 0 (Radford et al. 2019, sec. 2.3).

    | parameters | start |
    |---|---|
    | matrices of nn.Linear, nn.Embedding, nn.LSTM and experts | N(0, std) |
    | those of them that a block has for `output` or `contract` | N(0, std / sqrt(2 x num_layers)) |
    | biases of nn.Linear and nn.LSTM | 0 |
    | all others: norms, kernels, decays, time steps, latents | as built |

    The narrower ones project into the residual stream, two in a block, and their sum does not grow
    with depth.
    """

    def __init__(self, *, std: Positive = 0.02) -> None:
        self.std = std

    def __call__(self, model: nn.Module) -> None:
        blocks = getattr(model, "blocks", None)
        if blocks is None:
            raise ValueError(
                f"gpt2 is for blocks with a residual stream, and {type(model).__name__} has none; "
                "use init=default"
            )
        residual_std = self.std * (2 * len(blocks)) ** -0.5
        owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
        with torch.no_grad():
            for name, weights in model.named_parameters():
                owner = owners[id(weights)]
                has_matrices = isinstance(owner, (nn.Linear, nn.Embedding, nn.LSTM, FFN))
                if has_matrices and weights.ndim > 1:
                    is_residual = "blocks." in name and set(name.split(".")) & {*RESIDUAL}
                    weights.normal_(std=residual_std if is_residual else self.std)
                elif isinstance(owner, (nn.Linear, nn.LSTM)):
                    weights.zero_()
