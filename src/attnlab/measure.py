"""What causal models cost on this machine, by length: time, peak memory and FLOPs."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from attnlab.model.base import Model
from attnlab.model.cost import flops

NUM_TOKENS = 256
"""Size of the vocabulary that random tokens are drawn from."""
LEAST = 0.02
"""Seconds that one timing takes at least, so that no clock is too coarse for it."""
MODES = {
    "forward": "the whole sequence, in evaluation, without gradients",
    "backward": "forward, loss and backward, as in training; no optimizer",
    "decode": "one token of one sequence, the earlier ones cached",
}
PRECISIONS = {
    "32-true": (None, None),
    "64-true": (torch.float64, None),
    "bf16-true": (torch.bfloat16, None),
    "bf16-mixed": (None, torch.bfloat16),
    "16-mixed": (None, torch.float16),
}
"""What each of the trainer's precisions makes of the parameters, and of products (autocast)."""

Clock = Callable[[], float]
Work = Callable[[], Any]
"""What is timed; it leaves nothing behind."""


@dataclass(frozen=True)
class Arm:
    """A causal model over NUM_TOKENS tokens that takes part under a name."""

    name: str
    model: Model
    precision: str = "32-true"

    def to(self, device: torch.device) -> None:
        """Move it to where it is measured, in its precision."""
        self.model.to(device, PRECISIONS[self.precision][0])

    def cast(self, device: torch.device) -> AbstractContextManager:
        """Give the context of a forward pass."""
        low = PRECISIONS[self.precision][1]
        # On a CPU, training takes bfloat16 for either.
        low = torch.bfloat16 if low and device.type == "cpu" else low
        return torch.autocast(device.type, low) if low else nullcontext()


@dataclass(frozen=True)
class Cell:
    """What one call of an arm took: so many sequences of a length, or (decode) a token of each.

    Without `seconds`, the memory did not suffice.
    """

    arm: str
    mode: str
    length: int
    batch: int
    seconds: Sequence[float]
    """A call, round by round."""
    peak: int | None
    """Bytes allocated at most during a call, on top of parameters and inputs."""
    flops: int | None
    """Of the forward pass of the whole call."""
    state_size: int | None
    """Numbers that are kept of one sequence of that length; None where the model cannot step."""

    @property
    def tokens_per_second(self) -> float | None:
        """At the median of the rounds."""
        read = self.batch * (1 if self.mode == "decode" else self.length)
        return read / median(self.seconds) if self.seconds else None


def measure(
    arms: Sequence[Arm],
    lengths: Sequence[int],
    modes: Sequence[str] = tuple(MODES),
    tokens: int = 4096,
    rounds: int = 7,
    device: torch.device | None = None,
    clock: Clock | None = None,
) -> Iterator[Cell]:
    """Measure all arms at all lengths; at each length and mode they take turns.

    A call reads `tokens` random tokens, in sequences of the length, but one sequence at least. To
    decode, an arm first reads the tokens before the last one step by step, going on from the state
    that it had at the length before: as many steps as the longest sequence has tokens, once an arm.
    """
    device = device or torch.device("cpu")
    readers = {arm.name: Reader(arm, device) for arm in arms}
    for arm in arms:
        arm.to(device)
    for length in sorted(set(lengths)):
        for mode in modes:
            batch = 1 if mode == "decode" else max(1, tokens // length)
            works, peaks = {}, {}
            for name, reader in readers.items():
                works[name] = reader.work(mode, length, batch)
                try:
                    peaks[name] = peak(works[name], device)
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                    works.pop(name)
            counted = {name: batch * readers[name].flops(mode, length) for name in works}
            times = take_turns(works, rounds, clock or _clock(device))
            for arm in arms:
                yield Cell(
                    arm.name,
                    mode,
                    length,
                    batch,
                    times.get(arm.name, ()),
                    peaks.get(arm.name),
                    counted.get(arm.name),
                    state_size(arm.model, length),
                )


def take_turns(
    works: Mapping[str, Work], rounds: int, clock: Clock = time.perf_counter, least: float = LEAST
) -> Mapping[str, list[float]]:
    """Time works in turn, each round from another one on; gives the seconds of a call by round.

    Each is first called until that takes `least` seconds, which also warms it up; in its turn it is
    called as often.
    """
    calls = {name: _enough(work, clock, least) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            times[name].append(_together(works[name], calls[name], clock) / calls[name])
    return times


def peak(work: Work, device: torch.device | None = None) -> int:
    """Give the bytes that are allocated at most while a work runs, on top of what stood before.

    The work is called once before, so that what is made once and kept is not counted. On a GPU,
    torch's allocator counts. On a CPU, the profiler says every allocation and release of torch's
    allocator, and the highest running sum counts: so what a kernel takes for itself is in it, as on
    a GPU (on x86, fused attention takes more for its backward than its inputs). Alternatives: the
    resident size of a process jumps by what the allocator of the system keeps; a dispatch mode that
    follows storages sees only what operators hand to each other.
    """
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The profiler reports each start and stop on standard error unless told otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as seen:
        work()
    results = seen.profiler and seen.profiler.kineto_results
    assert results is not None
    moved = [event for event in results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(moved, key=lambda event: event.start_ns()):
        live += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        highest = max(highest, live)
    return highest


def state_size(model: Model, length: int) -> int | None:
    """Count what a model keeps of one sequence; None where one of its layers cannot step."""
    try:
        return model.state_size(length)
    except ValueError:
        return None


class Reader:
    """Reads random tokens with one arm, in each mode."""

    def __init__(self, arm: Arm, device: torch.device) -> None:
        self.arm, self.device = arm, device
        self.at, self.state = 0, None

    def work(self, mode: str, length: int, batch: int) -> Work:
        """Make what is timed."""
        self.arm.model.train(mode == "backward")
        if mode == "decode":
            self._read_to(length - 1)
            return partial(self._step, self._tokens(1, 1))
        tokens = self._tokens(batch, length + 1)
        if mode == "forward":
            return partial(self._forward, tokens[:, :-1])
        return partial(self._backward, tokens[:, :-1], tokens[:, 1:].flatten())

    def flops(self, mode: str, length: int) -> int:
        """Count those of the forward pass of one sequence, or of one token."""
        # cuDNN's fused recurrent layers are one operator that hides its products.
        with torch.backends.cudnn.flags(enabled=False), self.arm.cast(self.device):
            if mode == "decode":
                return flops(Step(self.arm.model, self.at, self.state), self._tokens(1, 1))
            return flops(self.arm.model, self._tokens(1, length))

    def _forward(self, inputs: Int[Tensor, "batch seq"]) -> None:
        with torch.no_grad(), self.arm.cast(self.device):
            self.arm.model(inputs)

    def _backward(self, inputs: Int[Tensor, "batch seq"], targets: Int[Tensor, " label"]) -> None:
        with self.arm.cast(self.device):
            logits, losses = self.arm.model(inputs)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets)
        sum(losses.values(), loss).backward()
        self.arm.model.zero_grad()

    def _step(self, inputs: Int[Tensor, "batch 1"]) -> Any:
        with torch.no_grad(), self.arm.cast(self.device):
            return self.arm.model.step(inputs, self.at, self.state)[1]

    def _read_to(self, length: int) -> None:
        for token in self._tokens(1, length - self.at).split(1, dim=1):
            self.state = self._step(token)
            self.at += 1

    def _tokens(self, batch: int, seq: int) -> Int[Tensor, "batch seq"]:
        return torch.randint(NUM_TOKENS, (batch, seq), device=self.device)


class Step(nn.Module):
    """One step of a model, as something that can be called."""

    def __init__(self, model: Model, at: int, state: Any) -> None:
        super().__init__()
        self.model, self.at, self.state = model, at, state
        self.train(model.training)

    def forward(self, inputs: Int[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 output"]:
        """Give the logits after one more token."""
        return self.model.step(inputs, self.at, self.state)[0]


def _clock(device: torch.device) -> Clock:
    if device.type != "cuda":
        return time.perf_counter

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized


def _enough(work: Work, clock: Clock, least: float) -> int:
    """Find how many calls take `least` seconds."""
    work()
    calls = 1
    while (took := _together(work, calls, clock)) < least:
        # A tenth more, since the next ones may be faster; a clock may also say 0.
        calls = max(2 * calls, math.ceil(1.1 * calls * least / took) if took > 0 else 0)
    return calls


def _together(work: Work, calls: int, clock: Clock) -> float:
    began = clock()
    for _ in range(calls):
        work()
    return clock() - began


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
