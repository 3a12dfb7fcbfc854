"""The cost of causal models on this machine, by length: time, peak memory and FLOPs."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
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
from attnlab.precision import forward_context, parameter_type

NUM_TOKENS = 256
"""Size of the vocabulary from which random tokens are drawn."""
LEAST_SECONDS = 0.02
"""Smallest duration of one timing in seconds, so that the clock is fine enough for it."""
MODES = {
    "forward": "the whole sequence, in evaluation, without gradients",
    "backward": "forward, loss and backward, as in training; no optimizer",
    "decode": "one token of one sequence, the earlier ones cached",
}
Clock = Callable[[], float]
Work = Callable[[], Any]
"""A call that is timed; it has no lasting effect."""


@dataclass(frozen=True)
class MeasuredArm:
    """A causal model over NUM_TOKENS tokens, with the name under which it is measured."""

    name: str
    model: Model
    precision: str = "32-true"

    def to(self, device: torch.device) -> None:
        """Move the model to a device, in its precision."""
        self.model.to(device, parameter_type(self.precision))

    def cast(self, device: torch.device) -> AbstractContextManager:
        """Return the context of a forward pass."""
        return forward_context(self.precision, device.type)


@dataclass(frozen=True)
class Measurement:
    """The cost of one call of an arm on `batch` sequences of `length`; for decode, on one token.

    `seconds` is empty if there was not enough memory.
    """

    arm: str
    mode: str
    length: int
    batch: int
    seconds: Sequence[float]
    """The duration of a call, by round."""
    peak_bytes: int | None
    """Peak bytes allocated during a call, in addition to parameters and inputs."""
    flops: int | None
    """FLOPs of the forward pass of the whole call."""
    state_size: int | None
    """Numbers kept per sequence of that length; None if the model cannot step."""

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second, at the median of the rounds."""
        num_tokens = self.batch * (1 if self.mode == "decode" else self.length)
        return num_tokens / median(self.seconds) if self.seconds else None


def measure(
    arms: Sequence[MeasuredArm],
    lengths: Sequence[int],
    modes: Sequence[str] = tuple(MODES),
    tokens: int = 4096,
    rounds: int = 7,
    device: torch.device | None = None,
    clock: Clock | None = None,
) -> Iterator[Measurement]:
    """Yield the cost of all arms at all lengths; at each length and mode they take turns.

    A call reads `tokens` random tokens, in sequences of the length, but at least one sequence. To
    decode, an arm first reads the tokens before the last one step by step, continuing from its
    state at the previous length: in total, as many steps as the longest sequence has tokens.
    """
    device = device or torch.device("cpu")
    readers = {arm.name: Reader(arm, device) for arm in arms}
    for arm in arms:
        arm.to(device)
    for length in sorted(set(lengths)):
        for mode in modes:
            batch = 1 if mode == "decode" else max(1, tokens // length)
            calls_by_arm, peaks_by_arm = {}, {}
            for name, reader in readers.items():
                calls_by_arm[name] = reader.build_work(mode, length, batch)
                try:
                    peaks_by_arm[name] = measure_peak_bytes(calls_by_arm[name], device)
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                    calls_by_arm.pop(name)
            flops_by_arm = {
                name: batch * readers[name].flops(mode, length) for name in calls_by_arm
            }
            seconds_by_arm = take_turns(calls_by_arm, rounds, clock or _device_clock(device))
            for arm in arms:
                yield Measurement(
                    arm.name,
                    mode,
                    length,
                    batch,
                    seconds_by_arm.get(arm.name, ()),
                    peaks_by_arm.get(arm.name),
                    flops_by_arm.get(arm.name),
                    arm.model.state_size(length),
                )


def take_turns(
    work_by_name: Mapping[str, Work],
    rounds: int,
    clock: Clock = time.perf_counter,
    least_seconds: float = LEAST_SECONDS,
) -> Mapping[str, list[float]]:
    """Return the seconds per call of each work, by round; each round starts with another work.

    Each is first called until that takes `least_seconds`, which also warms it up; in each of its
    turns it is called as often.
    """
    num_calls = {
        name: _calibrate_calls(work, clock, least_seconds) for name, work in work_by_name.items()
    }
    seconds_by_name: dict[str, list[float]] = {name: [] for name in work_by_name}
    names = list(work_by_name)
    for round_index in range(rounds):
        offset = round_index % max(1, len(names))
        for name in names[offset:] + names[:offset]:
            seconds_by_name[name].append(
                _time_calls(work_by_name[name], num_calls[name], clock) / num_calls[name]
            )
    return seconds_by_name


def measure_peak_bytes(work: Work, device: torch.device | None = None) -> int:
    """Return the peak bytes allocated while a work runs, in addition to those allocated before.

    The work is called once before, so that what is allocated once and kept is not counted. On a
    GPU, torch's allocator counts. On a CPU, the profiler lists every allocation and release of
    torch's allocator, and the highest running sum is the peak: it includes the workspace of
    kernels, as on a GPU (on x86, fused attention takes more for its backward than its inputs).
    Alternatives: the resident size of a process jumps by what the system's allocator keeps; a
    dispatch mode that follows storages sees only what operators pass to each other.
    """
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        bytes_before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - bytes_before
    # By default, the profiler reports each start and stop on standard error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False
    ) as profiler:
        work()
    kineto_results = profiler.profiler and profiler.profiler.kineto_results
    assert kineto_results is not None
    memory_events = [event for event in kineto_results.events() if event.name() == "[memory]"]
    allocated_bytes = peak_bytes = 0
    for event in sorted(memory_events, key=lambda event: event.start_ns()):
        allocated_bytes += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak_bytes = max(peak_bytes, allocated_bytes)
    return peak_bytes


class Reader:
    """Reads random tokens with one arm, in each mode."""

    def __init__(self, arm: MeasuredArm, device: torch.device) -> None:
        self.arm, self.device = arm, device
        self.position, self.state = 0, None

    def build_work(self, mode: str, length: int, batch: int) -> Work:
        """Return the call that is timed."""
        self.arm.model.train(mode == "backward")
        if mode == "decode":
            self._read_to(length - 1)
            return partial(self._step, self._tokens(1, 1))
        tokens = self._tokens(batch, length + 1)
        if mode == "forward":
            return partial(self._forward, tokens[:, :-1])
        return partial(self._backward, tokens[:, :-1], tokens[:, 1:].flatten())

    def flops(self, mode: str, length: int) -> int:
        """Count the FLOPs of the forward pass of one sequence, or (decode) of one token."""
        # cuDNN's fused recurrent layers are one operator, whose products are not counted.
        with torch.backends.cudnn.flags(enabled=False), self.arm.cast(self.device):
            if mode == "decode":
                return flops(Step(self.arm.model, self.position, self.state), self._tokens(1, 1))
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
            return self.arm.model.step(inputs, self.position, self.state)[1]

    def _read_to(self, length: int) -> None:
        for token in self._tokens(1, length - self.position).split(1, dim=1):
            self.state = self._step(token)
            self.position += 1

    def _tokens(self, batch: int, seq: int) -> Int[Tensor, "batch seq"]:
        return torch.randint(NUM_TOKENS, (batch, seq), device=self.device)


class Step(nn.Module):
    """One step of a model as a module."""

    def __init__(self, model: Model, position: int, state: Any) -> None:
        super().__init__()
        self.model, self.position, self.state = model, position, state
        self.train(model.training)

    def forward(self, inputs: Int[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 output"]:
        """Return the logits after one more token."""
        return self.model.step(inputs, self.position, self.state)[0]


def _device_clock(device: torch.device) -> Clock:
    """Return a clock of seconds that waits for what the device still computes."""
    if device.type != "cuda":
        return time.perf_counter

    def synchronized_time() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized_time


def _calibrate_calls(work: Work, clock: Clock, least_seconds: float) -> int:
    """Return how many calls of a work take `least_seconds`."""
    work()
    num_calls = 1
    while (seconds := _time_calls(work, num_calls, clock)) < least_seconds:
        # A tenth more, since later calls may be faster; a coarse clock may also measure 0.
        num_calls = max(
            2 * num_calls,
            math.ceil(1.1 * num_calls * least_seconds / seconds) if seconds > 0 else 0,
        )
    return num_calls


def _time_calls(work: Work, num_calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(num_calls):
        work()
    return clock() - start


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
