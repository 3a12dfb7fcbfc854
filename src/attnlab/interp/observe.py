"""Observe a model without changing anything that its training depends on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from attnlab.split import Batch


@contextmanager
def isolated_evaluation(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode under a forked random state, and restore both at the end."""
    device, was_training = device_of(model), model.training
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(was_training)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    return Batch._make(tensor if tensor is None else tensor.to(device) for tensor in batch)
