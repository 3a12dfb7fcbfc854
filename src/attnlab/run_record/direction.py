"""Whether a lower or a higher metric is better: stated where it is defined, and in the record."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

LOSSES = ("loss", "perplexity", "bits_per_byte")
"""Metrics that objectives report of which lower is better."""

OF_0_1 = (*LOSSES, "loss_*", "within_*")
"""All metrics of which lower is better in records of 0.1, which do not state it."""


def lower_is_better(metric: str, stated_names: Collection[str] | None) -> bool:
    """Return whether lower is better for a metric such as `test_100/loss@length=8`.

    `stated_names` are the names (or patterns of names) for which a run's record states so; None
    for a record of 0.1.
    """
    name = metric.rpartition("/")[2].partition("@")[0]
    lower_patterns = OF_0_1 if stated_names is None else stated_names
    return any(fnmatchcase(name, pattern) for pattern in lower_patterns)


def lower_is_better_names(metric_or_evidence: Any, metric_name: str | None = None) -> list[str]:
    """Return the names for which a metric or evidence states that lower is better.

    The attribute `lower_is_better` of a metric, which has a `metric_name`, is a bool; that of an
    evidence, which measures several numbers, lists names or patterns.
    """
    # A choice with knobs is a partial of the function that has the attribute.
    function = getattr(metric_or_evidence, "func", metric_or_evidence)
    stated_lower = getattr(function, "lower_is_better", ())
    if metric_name is not None:
        return [metric_name] if stated_lower else []
    return list(stated_lower)
