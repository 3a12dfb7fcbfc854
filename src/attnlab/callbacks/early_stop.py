"""Early stopping, when more training no longer helps."""

from typing import Any

from attnlab.ranges import Count, NotNegative, Real, ranged


@ranged
class EarlyStop:
    """Stops once the validation metric is good enough, or has not improved for a while.

    `patience` counts validations without an improvement of more than `min_delta`; null waits for
    ever. `threshold` stops as soon as it is reached. Whether less of the metric is better, the
    metric says. The tokens not trained on count as spent.
    """

    def __init__(
        self,
        *,
        metric: str = "loss",
        patience: Count | None = 5,
        min_delta: NotNegative = 0.0,
        threshold: Real | None = None,
    ) -> None:
        self.metric, self.patience = metric, patience
        self.min_delta, self.threshold = min_delta, threshold
        self.lower_is_better = metric == "loss"
        self.best, self.waited = float("-inf"), 0

    def should_stop(self, validation: dict[str, float]) -> bool:
        """Return whether to stop, after the newest `validation` has been compared with the best."""
        if self.metric not in validation:
            raise ValueError(
                f"callbacks.early_stop.metric={self.metric!r} is not measured; "
                f"there are {', '.join(validation)}"
            )
        sign = -1.0 if self.lower_is_better else 1.0
        score = sign * validation[self.metric]
        if score > self.best + self.min_delta:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        reaches_threshold = self.threshold is not None and score >= sign * self.threshold
        return reaches_threshold or (self.patience is not None and self.waited >= self.patience)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.waited = state["best"], state["waited"]
