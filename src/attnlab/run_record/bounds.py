"""The range of a metric's values: stated where the metric is defined, and in the record."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import inf
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """The lowest and the highest value that a metric can have."""

    low: float | int = -inf
    high: float | int = inf

    def to_json(self) -> tuple[float | None, float | None]:
        """Return both bounds as a record states them: None for an infinite one."""
        low, high = (None if abs(bound) == inf else float(bound) for bound in self)
        return low, high


SHARE, NOT_NEGATIVE, ANY = Bounds(0, 1), Bounds(0), Bounds()
LOSSES = {"loss": NOT_NEGATIVE, "perplexity": Bounds(1), "bits_per_byte": NOT_NEGATIVE}
"""Those of the metrics that objectives report."""
GAUGES = {"*.load.*": SHARE, "*.drops": SHARE}
"""Those of the gauges of mixtures of experts: shares of the assignments and of the tokens."""
UNSTATED = {
    **LOSSES,
    **GAUGES,
    **dict.fromkeys(("accuracy", "sequence_accuracy", "top_k", "f1"), SHARE),
    **dict.fromkeys((f"pronoun/*{kind}" for kind in ("right", "wrong", "pointer", "flip")), SHARE),
    **dict.fromkeys(("pronoun/twins", "recall/without_*", "recall/whole"), SHARE),
    **dict.fromkeys(("recall/read", "recall/gather", "recall/previous"), SHARE),
    **dict.fromkeys(("context/loss_*", "context/within_*", "sampled/loss"), NOT_NEGATIVE),
}
"""Those of attnlab's own metrics, for records from before records stated them."""


def metric_bounds(
    metric: str, stated_ranges: Mapping[str, tuple[float | None, float | None]] | None
) -> Bounds:
    """Return the range of a metric such as `test_100/accuracy@length=8` or `pronoun/right`.

    `stated_ranges` are those that a run's record states, by names or patterns of names; None for a
    record that states none. A metric of which nothing is known may have any value.
    """
    full_name = metric.partition("@")[0]
    ranges = UNSTATED if stated_ranges is None else stated_ranges
    for pattern, (low, high) in ranges.items():
        # The pattern of an evidence's number begins with the evidence, that of a metric does not.
        name = full_name if "/" in pattern else full_name.rpartition("/")[2]
        if fnmatchcase(name, pattern):
            return Bounds(-inf if low is None else low, inf if high is None else high)
    return ANY


def stated_bounds(
    metric_by_name: Mapping[str, Any], evidence_by_name: Mapping[str, Any]
) -> dict[str, tuple[float | None, float | None]]:
    """Return the ranges that metrics and evidence, given by name, state for their numbers.

    The attribute `bounds` of a metric is one range; that of an evidence has one for each name, or
    pattern of names.
    """
    bounds_by_name = {**LOSSES, **GAUGES}
    for name, metric in metric_by_name.items():
        # A choice with knobs is a partial of the function that has the attribute.
        metric_range = getattr(getattr(metric, "func", metric), "bounds", None)
        if metric_range is not None:
            bounds_by_name[name] = Bounds(*metric_range)
    for name, evidence in evidence_by_name.items():
        range_by_pattern = getattr(getattr(evidence, "func", evidence), "bounds", {})
        for pattern, number_range in range_by_pattern.items():
            bounds_by_name[f"{name}/{pattern}"] = Bounds(*number_range)
    return {name: bounds.to_json() for name, bounds in bounds_by_name.items()}
