"""Which tokens a layer works on."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnlab.layers import SequenceName
from attnlab.model.base import Model
from attnlab.split import Batch


def tokens_of(sequence: SequenceName, asked: Batch) -> Tensor | None:
    """Return the tokens of a sequence, (batch, position); latents have none."""
    return {"inputs": asked.inputs, "prefix": asked.prefix, "latents": None}[sequence]


def valid_of(sequence: SequenceName, asked: Batch, size: int) -> Bool[Tensor, "batch position"]:
    """Return which of `size` positions of a sequence are no padding."""
    valid = {"inputs": asked.valid, "prefix": asked.prefix_valid, "latents": None}[sequence]
    if valid is not None:
        return valid
    return torch.ones(len(asked.inputs), size, dtype=torch.bool, device=asked.inputs.device)


def worked_on(
    model: Model, path: str, asked: Batch
) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
    """Return the tokens that the module at a path works on one by one, and which are no padding."""
    sequence = model.axes_at(path).queries
    tokens = tokens_of(sequence, asked)
    assert tokens is not None
    return tokens, valid_of(sequence, asked, tokens.shape[1])
