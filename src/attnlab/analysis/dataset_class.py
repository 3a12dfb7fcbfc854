"""The class of a run's dataset, where attnlab defines it."""

from collections.abc import Mapping
from typing import Any

from attnlab.building import NOTHING, find_target
from attnlab.dataset.base import Dataset


def dataset_class(identity: Mapping[str, Any]) -> type[Dataset] | None:
    """Return the class of a run's dataset; None for a class that attnlab does not define.

    A record can name any class, and only attnlab's own are known to be harmless when imported.
    """
    try:
        target = find_target((identity.get("dataset") or {}).get("_target_"), "dataset", NOTHING)
    except ValueError:
        return None
    return target if issubclass(target, Dataset) else None
