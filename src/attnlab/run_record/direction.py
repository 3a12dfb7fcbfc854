"""Whether more or less of a metric is better: stated where it is defined, kept in the record."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

LOSSES = ("loss", "perplexity", "bits_per_byte")
"""What objectives report; less of it is better."""

OF_0_1 = (*LOSSES, "loss_*", "within_*")
"""All that records of 0.1, which state nothing, have of which less is better."""


def lower_is_better(metric: str, stated: Collection[str] | None) -> bool:
    """Return whether less is better of a metric such as `test_100/loss@length=8`.

    `stated` are the names (or patterns of names) of which less is better in a run's record; None
    for a record of 0.1.
    """
    name = metric.rpartition("/")[2].partition("@")[0]
    return any(fnmatchcase(name, lower) for lower in (OF_0_1 if stated is None else stated))


def stated_names(part: Any, own_name: str | None = None) -> list[str]:
    """Return the names for which a metric or evidence states that less is better.

    `lower_is_better` is true for a metric, whose `own_name` it then is; for evidence, which
    measures several numbers, it lists names or patterns.
    """
    # A choice with knobs is a partial of the function that states it.
    stated = getattr(getattr(part, "func", part), "lower_is_better", ())
    if own_name is not None:
        return [own_name] if stated else []
    return list(stated)
