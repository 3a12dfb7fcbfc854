"""What a run changes of the process it is in: random states, threads, precision of products."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def preserve_process_state() -> Iterator[None]:
    """Give the process back as it was, so that the next run in it finds what this one found."""
    states = random_states()
    threads = torch.get_num_threads()
    matmul_precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        restore_random_states(states)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul_precision)


def random_states() -> dict[str, Any]:
    """Return the states of all random generators, as a checkpoint can hold them."""
    # Tensors and plain values only: a checkpoint is loaded with weights_only=True.
    name, keys, index, has_gauss, cached_gaussian = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            index,
            has_gauss,
            cached_gaussian,
        ),
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set the states of all random generators to what `random_states` returned."""
    torch.set_rng_state(states["torch"])
    cuda: list[Tensor] = states["cuda"]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)
    random.setstate(states["python"])
    name, keys, index, has_gauss, cached_gaussian = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), index, has_gauss, cached_gaussian))  # noqa: NPY002
