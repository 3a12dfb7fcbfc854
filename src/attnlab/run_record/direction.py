"""Whether a lower or a higher metric is better: stated where it is defined, and in the record."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

LOSSES = ("loss", "perplexity", "bits_per_byte")
"""Metrics that objectives report of which lower is better."""

OF_0_1 = (*LOSSES, "loss_*", "within_*")
"""All metrics of which lower is better in records of 0.1, which do not state it."""


def lower_is_better(metric: str, stated: Collection[str] | None) -> bool:
    """Return whether lower is better for a metric such as `test_100/loss@length=8`.

    `stated` has the names (or patterns of names) for which a run's record states so; None for a
    record of 0.1.
    """
    name = metric.rpartition("/")[2].partition("@")[0]
    return any(fnmatchcase(name, pattern) for pattern in (OF_0_1 if stated is None else stated))


def stated_names(part: Any, own_name: str | None = None) -> list[str]:
    """Return the names for which a metric or evidence states that lower is better.

    The attribute `lower_is_better` of a metric, called `own_name`, is a bool; that of an evidence,
    which measures several numbers, lists names or patterns.
    """
    # A choice with knobs is a partial of the function that has the attribute.
    stated = getattr(getattr(part, "func", part), "lower_is_better", ())
    if own_name is not None:
        return [own_name] if stated else []
    return list(stated)
