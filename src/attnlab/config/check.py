"""Hold the values of a config against the signatures of what they name."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from attnlab.building import DIRECTIVES, UserTargets
from attnlab.config.composition import parse_overrides
from attnlab.config.config import APART, COLLECTIONS, ROOT_KNOBS, SECTIONS, UNPACKED, Config
from attnlab.errors import ConfigError
from attnlab.signatures import (
    as_float_if_asked,
    convert_whole_numbers,
    nearest_hint,
    partial_faults,
    target_faults,
    value_faults,
)

WIRED = ("objective",)
"""The sections whose part is called later, with wiring from the code."""


def change_config(config: Config, overrides: Sequence[str]) -> Config:
    """Return a config with other values at keys that it already has, checked against the code.

    Raises ConfigError with every fault.
    """
    values = copy.deepcopy(config.values)
    override_by_text, faults = parse_overrides(overrides)
    for text, override in override_by_text.items():
        if override.is_sweep_override():
            faults.append(f"{text}: one value is expected here; write a list as [a,b]")
            continue
        *path, knob = override.key_or_group.split(".")
        node: Any = values
        for part in path:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        if knob not in node or knob in DIRECTIVES:
            knobs = [name for name in node if name not in DIRECTIVES]
            faults.append(f"{override.key_or_group}: no such key{nearest_hint(knob, knobs)}")
        else:
            node[knob] = override.value()
    faults += signature_faults(values, config.user_targets)
    if faults:
        raise ConfigError(faults)
    convert_config_numbers(values, config.user_targets)
    return replace(config, values=values)


def signature_faults(values: dict[str, Any], user_targets: UserTargets) -> Iterator[str]:
    """Yield what does not fit: sections, parts that cannot be found, their knobs and types."""
    yield from root_faults(values)
    yield from _component_faults(values, user_targets)


def root_faults(values: dict[str, Any]) -> Iterator[str]:
    """Yield what does not fit at the root; no class is imported for that."""
    keys = {*ROOT_KNOBS, *SECTIONS, *COLLECTIONS, *APART}
    for key in [key for key in values if key not in keys]:
        if key in UNPACKED:
            yield f"{key}: its YAML needs `# @package _global_` as the first line"
        else:
            yield f"{key}: no such key at the root{nearest_hint(key, keys)}"
    for key, kind in ROOT_KNOBS.items():
        if key in values:
            yield from value_faults(values[key], kind, key)
    for key, value in values.items():
        yield from _non_text_key_faults(value, key)


def _component_faults(values: dict[str, Any], user_targets: UserTargets) -> Iterator[str]:
    """Yield what does not fit in the sections; their classes are imported, and with them torch."""
    for key in SECTIONS:
        node = values.get(key)
        if not isinstance(node, dict) or "_target_" not in node:
            yield f"{key}: expected a choice with a _target_, got {node!r}"
        else:
            yield from target_faults(node, key, user_targets)
            yield from partial_faults(node, key, is_called_later=key in WIRED)
    for key in APART:
        if values.get(key):
            yield from target_faults(values[key], key, user_targets)
    for section in COLLECTIONS:
        for name, node in (values.get(section) or {}).items():
            if node is not None:
                yield from target_faults(node, f"{section}.{name}", user_targets)
    cadence = (values.get("callbacks") or {}).get("cadence")
    yield from partial_faults(cadence, "callbacks.cadence", is_called_later=True)
    for name, node in (values.get("logger") or {}).items():
        yield from partial_faults(node, f"logger.{name}", is_called_later=False)


def convert_config_numbers(values: dict[str, Any], user_targets: UserTargets) -> None:
    """Make floats, in place, of the whole numbers in checked values whose knobs are floats."""
    for key, kind in ROOT_KNOBS.items():
        if key in values:
            values[key] = as_float_if_asked(values[key], kind)
    for key in (*SECTIONS, *COLLECTIONS, *APART):
        convert_whole_numbers(values.get(key), key, user_targets)


def _non_text_key_faults(value: Any, path: str) -> Iterator[str]:
    """Yield a fault for each key of a mapping that a record cannot hold."""
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                yield f"{path}: the key {key!r} is {type(key).__name__}, expected text in quotes"
            yield from _non_text_key_faults(child, f"{path}.{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _non_text_key_faults(child, f"{path}[{index}]")
