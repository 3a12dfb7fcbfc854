"""Warm up, then stay."""

from attnlab.schedule.base import Schedule


class Constant(Schedule):
    """Rises linearly for `warmup_steps`, then keeps the optimizer's learning rate."""

    def __init__(self, *, warmup_steps: int = 0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps={warmup_steps} must not be negative")
        self.warmup_steps = warmup_steps

    def scale(self, step: int, max_steps: int) -> float:
        return min(1.0, (step + 1) / (self.warmup_steps + 1))
