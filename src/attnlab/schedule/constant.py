"""Warm up, then stay."""

from attnlab.ranges import CountOrZero, ranged
from attnlab.schedule.base import Schedule


@ranged
class Constant(Schedule):
    """Rises linearly for `warmup_steps`, then keeps the optimizer's learning rate."""

    def __init__(self, *, warmup_steps: CountOrZero = 0) -> None:
        self.warmup_steps = warmup_steps

    def scale(self, step: int, max_steps: int) -> float:
        return min(1.0, (step + 1) / (self.warmup_steps + 1))
