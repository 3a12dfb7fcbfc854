"""Looking at a model without moving anything that its training depends on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from attnlab.split import Batch, Split


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode under a forked random state, and all back at the end."""
    device, was_training = device_of(model), model.training
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(was_training)


def device_of(model: nn.Module) -> torch.device:
    """Say where a model's weights are."""
    return next(model.parameters()).device


def moved(batch: Batch, device: torch.device) -> Batch:
    """Put a batch where a model is."""
    return Batch._make(part if part is None else part.to(device) for part in batch)


def numbered(batches: Split | Iterable[Batch], size: int, most: int | None) -> Iterator[Batch]:
    """Give batches; the first `most` of a split, with the numbers that an objective draws by."""
    if not isinstance(batches, Split):
        yield from batches
        return
    most = len(batches) if most is None else min(most, len(batches))
    for start in range(0, most, size):
        index = np.arange(start, min(start + size, most))
        yield batches.batch(index)._replace(key=torch.from_numpy(index))
