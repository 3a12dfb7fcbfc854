"""What runs at once share: the GPUs, which are dealt out, and the memory."""

from collections.abc import Sequence

from attnlab.config import Config
from attnlab.environment import read_variable

GIB = 2**30


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    CUDA is not begun for that, so that a process which is forked later can still choose.
    """
    import torch

    count = torch.cuda.device_count()
    names = [name for name in (read_variable("CUDA_VISIBLE_DEVICES") or "").split(",") if name]
    return names[:count] if names else [str(index) for index in range(count)]


def deal_gpus(gpus: Sequence[str], slot: int, config: Config) -> str | None:
    """Return the GPU of the run in a slot, dealt out in turn; None where none has to be chosen."""
    if len(gpus) < 2 or config.values["trainer"].get("accelerator") == "cpu":
        return None
    return gpus[slot % len(gpus)]


def limit_memory(gib: float | None) -> None:
    """Limit the memory that this process may still allocate, where the system can.

    What goes beyond it raises MemoryError, or torch's RuntimeError; Linux counts data and
    anonymous maps, but not files that are mapped.
    """
    if gib is None:
        return
    import resource

    _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
    num_bytes = int(gib * GIB)
    if hard_limit != resource.RLIM_INFINITY:
        num_bytes = min(num_bytes, hard_limit)
    resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, hard_limit))
