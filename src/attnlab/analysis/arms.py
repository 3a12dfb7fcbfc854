"""What tells the arms of a comparison apart: an arm is all runs that differ in their seed alone."""

import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from attnlab.run_record.history import REVISION
from attnlab.run_record.result import RunResult

FIRST = ("variant", "num_layers")
"""The keys that a reader looks for first."""
NAMED = (*FIRST, "dataset", "network_depth")
"""The keys that are known by a short name."""


@dataclass(frozen=True)
class Run:
    """A finished run: its result, and its config by dotted keys, without the seed."""

    name: str
    result: RunResult
    config: Mapping[str, Any]

    @property
    def arm(self) -> str:
        return json.dumps(self.config, sort_keys=True)

    def at(self, keys: Iterable[str]) -> dict[str, Any]:
        """Give the config's values at some keys; None where it has no such key."""
        return {key: self.config.get(key) for key in keys}


def flatten(result: RunResult) -> dict[str, Any]:
    """Give a result's config as `{dotted key: value}`, without the seed.

    A component stands under its own path as the class that it is, so that `model.mixer` says which
    mixer. The short names are added: variant, num_layers, dataset, network_depth.
    """
    named = {key: getattr(result, key) for key in NAMED}
    return {**flatten_identity(result.identity), **named}


def flatten_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run, finished or not, as `flatten` does, but for network_depth."""
    kept = {key: value for key, value in identity.items() if key != "seed"}
    if "parent" in kept:
        # The parent's name holds its seed; what matters is that a shorter run was continued.
        kept["parent"] = True
    names = {
        "variant": kept.get("variant"),
        "num_layers": (kept.get("model") or {}).get("num_layers"),
        "dataset": (kept.get("dataset") or {}).get("name"),
    }
    return {**_leaves(kept, ""), **names}


def label_keys(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose the keys whose values tell flattened configs apart, the best known first.

    A key is left out where its difference follows from another: knobs of components of different
    classes, components that the variant decides, and keys that move with a chosen key of their
    own config group. A knob that differs between components of one class is never left out, so
    arms of unequal learning rates cannot pass for arms of unequal variants.
    """
    chosen = [key for key in FIRST if differs_within(arms, [], key)]
    for key in dict.fromkeys(key for arm in arms for key in arm):
        if key in (*NAMED, "model.num_layers") or not differs_within(arms, _enclosing(key), key):
            continue
        room = key.split(".")[0]
        implied_by = [other for other in chosen if other.split(".")[0] == room]
        if room == "model" and any(_is_class(arm.get(key)) for arm in arms):
            implied_by.append("variant")
        if not implied_by or differs_within(arms, implied_by, key):
            chosen.append(key)
    return chosen


def differs_within(arms: Sequence[Mapping[str, Any]], fixed: Sequence[str], key: str) -> bool:
    """Whether two arms that agree on `fixed` differ in `key`."""
    seen: dict[str, str] = {}
    for arm in arms:
        where = json.dumps([arm.get(other) for other in fixed])
        value = json.dumps([key in arm, arm.get(key)])
        if seen.setdefault(where, value) != value:
            return True
    return False


def by_value(runs: Sequence[Run], value: Callable[[Run], Hashable]) -> list[list[Run]]:
    """Part runs by a value, in the order in which the values first occur."""
    parts: dict[Hashable, list[Run]] = {}
    for run in runs:
        parts.setdefault(value(run), []).append(run)
    return list(parts.values())


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Part runs into arms by their labels, in the order of first occurrence and then of seeds."""
    arms = by_value(runs, lambda run: run.arm)
    keys = dict.fromkeys(["dataset", *FIRST, *label_keys([arm[0].config for arm in arms])])
    return {label(arm[0].at(keys)): sorted(arm, key=lambda run: run.result.seed) for arm in arms}


def label(keys: Mapping[str, Any]) -> str:
    """Write key=value pairs with commas between."""
    return ",".join(f"{key}={shown(value)}" for key, value in keys.items())


def shown(value: Any) -> str:
    """Write a value as in an override; a class by its name alone, nothing as `-`."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value.rpartition(".")[2] if _is_class(value) else value
    return json.dumps(value)


def nearest(name: str, names: Iterable[str]) -> str:
    """Say which of the names was probably meant; `lr` finds `optimizer.lr`."""
    known = sorted(names)
    tails = {one: re.split("[./]", one)[-1] for one in known}
    close = [one for one in known if tails[one] == name] or get_close_matches(name, known, n=1)
    if not close:
        ends = get_close_matches(name, sorted(set(tails.values())), n=1)
        close = [one for one in known if tails[one] in ends]
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"


def _leaves(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {path: node["_target_"]} if "_target_" in node else {}
    if REVISION in node:
        found[f"{path}.revision"] = node[REVISION]
    for key, value in node.items():
        inner = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, inner)
        elif not key.startswith("_"):
            found[inner] = value
    return found


def _is_class(value: Any) -> bool:
    """Whether the value is the dotted path of a class, as a component's is."""
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value))


def _enclosing(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
