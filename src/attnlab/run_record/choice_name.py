"""Short names: the choice of a class, the ending of a dotted key, what distinguishes a cell."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

OTHERWISE = {
    "attnlab.position.base.Position": "none",
    "attnlab.init.base.Init": "default",
    "attnlab.training.Settings": "default",
}
"""The choices that are named by neither the module nor the class."""
WITH_SEVERAL_CHOICES = ("attnlab.model.block", "attnlab.matching")
"""The modules with a class for each of several choices, which are named by the class."""
NAMED_BY_VALUE = ("variant", "depth", "size", "dataset", "objective", "evidence")
"""Config groups whose choices say by themselves what they are."""


def choice_name(value: Any) -> Any:
    """Return the choice that a `_target_` stands for, as in `gated_delta`; other values as is.

    A choice has the name of its class's module, or of the class where a module has several:
    `PreNorm` is `pre_norm`. Of a class outside of attnlab, whose choice has a name of the user's,
    it is the bare name of the class.
    """
    if not isinstance(value, str):
        return value
    if value in OTHERWISE:
        return OTHERWISE[value]
    if re.fullmatch(r"attnlab\.(\w+\.)+\w+", value):
        module, _, class_name = value.rpartition(".")
        if module in WITH_SEVERAL_CHOICES:
            return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_name).lower()
        return module.rpartition(".")[2]
    return value.rpartition(".")[2] if is_class_path(value) else value


def is_class_path(value: Any) -> bool:
    """Return whether the value is the dotted path of a class, as a component's `_target_` is."""
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value))


def shortest_endings(keys: Iterable[str]) -> dict[str, str]:
    """Return the shortest ending of each dotted key that no other of the keys has."""
    path_by_key = {key: key.split(".") for key in keys}

    def ending(key: str, length: int) -> str:
        return ".".join(path_by_key[key][-length:])

    def is_unique(key: str, length: int) -> bool:
        endings = [ending(any_key, length) for any_key in path_by_key]
        return endings.count(ending(key, length)) == 1

    return {
        key: next(
            (ending(key, length) for length in range(1, len(path)) if is_unique(key, length)),
            key,
        )
        for key, path in path_by_key.items()
    }


def short_labels(overrides_by_cell: Sequence[Sequence[str]]) -> list[str]:
    """Return what distinguishes each run of a sweep, in few words, from its overrides."""
    common_overrides = (
        set.intersection(*map(set, overrides_by_cell)) if overrides_by_cell else set()
    )
    return [
        " ".join(
            _short_override(override) for override in overrides if override not in common_overrides
        )
        for overrides in overrides_by_cell
    ]


def _short_override(override: str) -> str:
    """Return an override in few words: `model/mixer=gated_delta` as `gated_delta`."""
    key, _, value = override.partition("=")
    short_key = re.split(r"[./@]", key)[-1]
    is_group = "/" in key or key in NAMED_BY_VALUE
    return value if is_group and value not in ("none", "default") else f"{short_key}={value}"
