"""The class of a run's dataset, where it is attnlab's own."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def dataset_class(identity: Mapping[str, Any]) -> Any:
    """Return the class of the data of a run; None for what is not attnlab's.

    A record can name any module, and only our own are known to be harmless when imported.
    """
    target = str((identity.get("dataset") or {}).get("_target_", ""))
    module, _, name = target.rpartition(".")
    if not module.startswith("attnlab.dataset.") or find_spec(module) is None:
        return None
    return getattr(import_module(module), name, None)
