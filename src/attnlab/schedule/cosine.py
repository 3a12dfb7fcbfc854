"""Warm up, then fall along a cosine."""

import math

from attnlab.schedule.base import Schedule


class Cosine(Schedule):
    """Rises linearly for `warmup_steps`, then falls to `floor` (Loshchilov & Hutter 2017, eq. 5).

    `floor` is a share of the peak learning rate.
    """

    def __init__(self, *, warmup_steps: int = 100, floor: float = 0.0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps={warmup_steps} must not be negative")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor={floor} must be a share between 0 and 1")
        self.warmup_steps, self.floor = warmup_steps, floor

    def scale(self, step: int, max_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, max_steps - self.warmup_steps)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
