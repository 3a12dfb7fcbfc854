"""The class of a run's dataset, where attnlab or the user's own --config-dir defines it."""

from collections.abc import Mapping
from inspect import isclass
from typing import TYPE_CHECKING, Any

from attnlab.building import NO_USER_TARGETS, UserTargets, find_target
from attnlab.errors import RequestError

if TYPE_CHECKING:
    from attnlab.dataset.base import Dataset


def dataset_class(
    identity: Mapping[str, Any], user_targets: UserTargets = NO_USER_TARGETS
) -> "type[Dataset] | None":
    """Return the class of a run's dataset; None for one that neither attnlab nor the user names.

    A record can name any class, and others are not known to be harmless when imported. Raises
    RequestError for a class of the user's own that cannot be imported.
    """
    # It imports torch, which takes seconds; most pages never ask.
    from attnlab.dataset.base import Dataset

    class_path = (identity.get("dataset") or {}).get("_target_")
    try:
        target = find_target(class_path, "dataset", user_targets)
    except ValueError as error:
        if class_path in user_targets.targets:
            raise RequestError(f"dataset: {error}") from error
        return None
    return target if isclass(target) and issubclass(target, Dataset) else None
