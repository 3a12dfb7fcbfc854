"""What the profiler says of a stretch of work: where the host waited, and what attended."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WAITS = re.compile(r"cu(da)?(Stream|Device|Event|Ctx)Synchronize|cudaMemcpy")
"""Calls in which the host waits for the device."""
COPIES = re.compile(r"Memcpy (DtoH|HtoD) .*")
"""Copies between the two; from memory that is not pinned, the host may wait for them too."""
ATTENDS = re.compile(r"flash|fmha|sdpa|attention", re.IGNORECASE)
"""How kernels of fused attention are called: torch's flash, CUTLASS's and cuDNN's."""
LAUNCHES = re.compile(r"cu(da)?Launch\w+")


@contextmanager
def profiled(device: torch.device) -> Iterator[list[Any]]:
    """Profile what is done inside; the events are in the list afterwards."""
    # The profiler reports each start and stop on standard error unless told otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    found: list[Any] = []
    with profile(activities=[ProfilerActivity.CPU, *cuda], acc_events=True) as profiler:
        yield found
    found += profiler.events() or []


def within(events: Sequence[Any], mark: str) -> list[Any]:
    """Keep what begins while stretches of this name last, from the first of them to the last.

    So the profiler's own waiting, at its start and end, is left out.
    """
    marks = [e.time_range for e in events if e.name == mark and e.device_type == DeviceType.CPU]
    if not marks:
        raise ValueError(f"nothing is marked {mark!r}")
    first, last = min(m.start for m in marks), max(m.end for m in marks)
    return [e for e in events if first <= e.time_range.start < last and e.name != mark]


def waits(events: Sequence[Any]) -> Counter[str]:
    """Count how often the host waited, by what it called."""
    return Counter(e.name for e in events if WAITS.fullmatch(e.name))


def copies(events: Sequence[Any]) -> Counter[str]:
    """Count the copies between host and device, by their kind."""
    return Counter(e.name for e in events if COPIES.fullmatch(e.name))


def launches(events: Sequence[Any]) -> int:
    """Count how often a kernel was launched."""
    return sum(LAUNCHES.fullmatch(e.name) is not None for e in events)


def attention(events: Sequence[Any]) -> str:
    """Name the kernels of fused attention that ran on the device; "none" if there were none."""
    names = {_short(e.name) for e in events if e.device_type != DeviceType.CPU}
    return ", ".join(sorted(name for name in names if ATTENDS.search(name))) or "none"


def _short(name: str) -> str:
    """Take the name of a kernel out of its signature."""
    bare = re.sub(r"^(void|__global__)\s+", "", name)
    return re.split(r"[<(]", bare)[0].rpartition("::")[2][:60]
