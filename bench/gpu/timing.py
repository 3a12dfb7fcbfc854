"""Clocks and counters for a device."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import torch
from torch import nn

from attnlab.measure import Clock, Work, take_turns
from attnlab.model.cost import flops


def clock(device: torch.device) -> Clock:
    """Give a clock that waits for the device to have done what it was told."""

    def seconds() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return seconds


def in_turn(
    works: Mapping[str, Work], device: torch.device, rounds: int, least: float
) -> dict[str, float]:
    """Time works in turn, after a warm-up; gives the median seconds of a call over the rounds.

    In its turn a work is called until that takes about `least` seconds.
    """
    times = take_turns(works, rounds, clock(device), least)
    return {name: median(of) for name, of in times.items()}


def seconds_of(work: Work, device: torch.device) -> float:
    """Time a single call."""
    now = clock(device)
    began = now()
    work()
    return now() - began


def forward_flops(model: nn.Module, inputs: torch.Tensor) -> float:
    """Count those of a forward pass, from its first sequence."""
    # cuDNN's fused recurrent layers are one operator that hides its products.
    with torch.backends.cudnn.flags(enabled=False), autocast(inputs.device):
        return float(len(inputs) * flops(model, inputs[:1]))


def autocast(device: torch.device) -> torch.autocast:
    """Give the context in which products are in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def clean(device: torch.device) -> Iterator[None]:
    """Give memory back before and after what is measured by itself."""
    try:
        _free(device)
        yield
    finally:
        _free(device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def gigabytes(number: float) -> float:
    """Give bytes in units of 1e9."""
    return number / 1e9


def largest(tries: Iterable[int], work: Callable[[int], None]) -> int:
    """Give the first size that fits into memory; raises OutOfMemoryError if none does."""
    sizes = list(tries)
    for size in sizes:
        try:
            work(size)
            return size
        except torch.OutOfMemoryError:
            if size == sizes[-1]:
                raise
    raise ValueError("no size was given to try")
