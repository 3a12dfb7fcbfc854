"""The range of a metric's values: stated where the metric is defined, and in the record."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import inf
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """The lowest and the highest value that a metric can have."""

    low: float | int = -inf
    high: float | int = inf

    def stated(self) -> tuple[float | None, float | None]:
        """Return both bounds, with None for an infinite one."""
        low, high = (None if abs(bound) == inf else float(bound) for bound in self)
        return low, high


SHARE, NOT_NEGATIVE, ANY = Bounds(0, 1), Bounds(0), Bounds()
LOSSES = {"loss": NOT_NEGATIVE, "perplexity": Bounds(1), "bits_per_byte": NOT_NEGATIVE}
"""Those of the metrics that objectives report."""
UNSTATED = {
    **LOSSES,
    **dict.fromkeys(("accuracy", "sequence_accuracy", "top_k", "f1"), SHARE),
    **dict.fromkeys((f"pronoun/*{kind}" for kind in ("right", "wrong", "pointer", "flip")), SHARE),
    **dict.fromkeys(("pronoun/twins", "recall/without_*", "recall/whole"), SHARE),
    **dict.fromkeys(("recall/read", "recall/gather", "recall/previous"), SHARE),
    **dict.fromkeys(("context/loss_*", "context/within_*", "sampled/loss"), NOT_NEGATIVE),
}
"""Those of attnlab's own metrics, for records from before records stated them."""


def metric_bounds(
    metric: str, stated: Mapping[str, tuple[float | None, float | None]] | None
) -> Bounds:
    """Return the range of a metric such as `test_100/accuracy@length=8` or `pronoun/right`.

    `stated` has the ranges that a run's record states, by names or patterns of names; None for a
    record that states none. A metric of which nothing is known may have any value.
    """
    full_name = metric.partition("@")[0]
    ranges = UNSTATED if stated is None else stated
    for pattern, (low, high) in ranges.items():
        # The pattern of an evidence's number begins with the evidence, that of a metric does not.
        name = full_name if "/" in pattern else full_name.rpartition("/")[2]
        if fnmatchcase(name, pattern):
            return Bounds(-inf if low is None else low, inf if high is None else high)
    return ANY


def stated_bounds(
    metrics: Mapping[str, Any], evidence: Mapping[str, Any]
) -> dict[str, tuple[float | None, float | None]]:
    """Return the ranges that metrics and evidence, given by name, state for their numbers.

    The attribute `bounds` of a metric is one range; that of an evidence has one for each name, or
    pattern of names.
    """
    ranges = dict(LOSSES)
    for name, metric in metrics.items():
        # A choice with knobs is a partial of the function that has the attribute.
        if (bounds := getattr(getattr(metric, "func", metric), "bounds", None)) is not None:
            ranges[name] = Bounds(*bounds)
    for name, part in evidence.items():
        own = getattr(getattr(part, "func", part), "bounds", {})
        ranges |= {f"{name}/{pattern}": Bounds(*bounds) for pattern, bounds in own.items()}
    return {name: bounds.stated() for name, bounds in ranges.items()}
