"""Warm up, then fall along a cosine."""

import math

from attnlab.ranges import CountOrZero, Share, ranged
from attnlab.schedule.base import Schedule


@ranged
class Cosine(Schedule):
    """Rises linearly for `warmup_steps`, then falls to `floor` (Loshchilov & Hutter 2017, eq. 5).

    `floor` is a share of the peak learning rate.
    """

    def __init__(self, *, warmup_steps: CountOrZero = 100, floor: Share = 0.0) -> None:
        self.warmup_steps, self.floor = warmup_steps, floor

    def scale(self, step: int, max_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, max_steps - self.warmup_steps)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
