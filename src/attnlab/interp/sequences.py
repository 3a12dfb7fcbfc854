"""The tokens and the padding of the sequence that a layer processes."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnlab.layers import SequenceName
from attnlab.model.base import Model
from attnlab.split import Batch


def sequence_tokens(sequence: SequenceName, batch: Batch) -> Tensor | None:
    """Return the tokens of a sequence, (batch, position); latents have none."""
    return {"inputs": batch.inputs, "prefix": batch.prefix, "latents": None}[sequence]


def sequence_valid(
    sequence: SequenceName, batch: Batch, num_positions: int
) -> Bool[Tensor, "batch position"]:
    """Return which of the `num_positions` positions of a sequence are no padding."""
    valid = {"inputs": batch.valid, "prefix": batch.prefix_valid, "latents": None}[sequence]
    if valid is not None:
        return valid
    return torch.ones(
        len(batch.inputs), num_positions, dtype=torch.bool, device=batch.inputs.device
    )


def processed_tokens(
    model: Model, path: str, batch: Batch
) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
    """Return the tokens of the sequence that the module at a path processes, and their validity."""
    sequence = model.axes_at(path).queries
    tokens = sequence_tokens(sequence, batch)
    assert tokens is not None
    return tokens, sequence_valid(sequence, batch, tokens.shape[1])
