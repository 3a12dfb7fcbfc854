"""The arms of a comparison and the config keys that distinguish them.

An arm is the set of all runs that differ only in their seed.
"""

import json
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from attnlab.run_record.choice_name import choice_name, is_class_path, shortest_endings
from attnlab.run_record.history import REVISION
from attnlab.run_record.result import RunResult

VARIANT_KEYS = ("variant", "num_layers")
"""The keys that come first in a label."""
SHORT_NAMES = (*VARIANT_KEYS, "dataset", "network_depth")
"""The keys that have a short name."""
MIXER = "model.mixer"
COST_FIELDS = (
    "parameters",
    "active_parameters",
    "flops_per_token",
    "state_size",
    "tokens",
    "seconds",
    "peak_memory_bytes",
)
"""The fields of a result that can be compared as metrics are; lower is better."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its result, and its config by dotted keys, without the seed."""

    name: str
    result: RunResult
    config: Mapping[str, Any]

    @cached_property
    def arm_identity(self) -> str:
        """The config as a text, which is the same for all runs of one arm."""
        return json.dumps(self.config, sort_keys=True)

    def value(self, metric: str) -> float | None:
        """Return a metric, or a cost (`COST_FIELDS`); None for one that the run lacks."""
        is_cost = metric in COST_FIELDS
        value = getattr(self.result, metric) if is_cost else self.result.metrics.get(metric)
        return None if value is None else float(value)

    def select_keys(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the config's values at some keys; None for a key that it does not have."""
        return {key: self.config.get(key) for key in keys}


def flatten_config(result: RunResult) -> dict[str, Any]:
    """Return a result's config as `{dotted key: value}`, without the seed.

    The value at a component's own path is its class, so `model.mixer` names the mixer. The short
    names are added: variant, num_layers, dataset, network_depth.
    """
    short_names = {key: getattr(result, key) for key in SHORT_NAMES}
    return {**flatten_identity(result.identity), **short_names}


def flatten_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run, finished or not, as `flatten` does, without network_depth."""
    config = {key: value for key, value in identity.items() if key != "seed"}
    if "parent" in config:
        # The parent's name holds its seed; what matters is that a shorter run was continued.
        config["parent"] = True
    short_names = {
        "variant": config.get("variant"),
        "num_layers": (config.get("model") or {}).get("num_layers"),
        "dataset": (config.get("dataset") or {}).get("name"),
    }
    return {**_flatten_node(config, ""), **short_names}


def naming_keys(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the keys that name arms whatever distinguishes them: what they are, and the depth.

    An arm is its variant. Where an override of a run chose the mixer, the variant says too little.
    """
    overrides = [override for run in runs for override in run.result.overrides]
    has_chosen_mixer = any(override.startswith("model/mixer=") for override in overrides)
    return [*([MIXER] if has_chosen_mixer else []), *VARIANT_KEYS]


def label_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values distinguish flattened configs, the keys of `VARIANT_KEYS` first.

    A key is left out where its difference follows from another difference: knobs of components of
    different classes, components that the variant decides, and keys that change together with an
    earlier key of the same config group. A knob that differs between components of the same class
    is never left out, so a difference in learning rate cannot pass for a difference in variant.
    """
    # Most of many runs differ in their seed alone, and equal configs distinguish nothing.
    configs = list({json.dumps(config, sort_keys=True): config for config in configs}.values())
    distinguishing_keys = [key for key in VARIANT_KEYS if differs_within(configs, [], key)]
    for key in dict.fromkeys(key for config in configs for key in config):
        if key in (*SHORT_NAMES, "model.num_layers") or not differs_within(
            configs, enclosing_paths(key), key
        ):
            continue
        config_group = key.split(".")[0]
        implying_keys = [
            earlier_key
            for earlier_key in distinguishing_keys
            if earlier_key.split(".")[0] == config_group
        ]
        if config_group == "model" and any(is_class_path(config.get(key)) for config in configs):
            implying_keys.append("variant")
        if not implying_keys or differs_within(configs, implying_keys, key):
            distinguishing_keys.append(key)
    return distinguishing_keys


def differs_within(
    configs: Sequence[Mapping[str, Any]], fixed_keys: Sequence[str], key: str
) -> bool:
    """Return whether two configs that agree on the fixed keys differ in `key`."""
    value_by_fixed_values: dict[str, str] = {}
    for config in configs:
        fixed_values = json.dumps([config.get(fixed_key) for fixed_key in fixed_keys])
        value = json.dumps([key in config, config.get(key)])
        if value_by_fixed_values.setdefault(fixed_values, value) != value:
            return True
    return False


def group_by_value(
    runs: Sequence[FinishedRun], value_of: Callable[[FinishedRun], Hashable]
) -> list[list[FinishedRun]]:
    """Return the runs grouped by a value, in the order in which the values first occur."""
    runs_by_value: dict[Hashable, list[FinishedRun]] = {}
    for run in runs:
        runs_by_value.setdefault(value_of(run), []).append(run)
    return list(runs_by_value.values())


def group_by_arm(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Return the arms by their labels, in order of first occurrence; the runs of each by seed."""
    runs_of_arms = group_by_value(runs, lambda run: run.arm_identity)
    arm_configs = [arm_runs[0].config for arm_runs in runs_of_arms]
    keys = dict.fromkeys(["dataset", *naming_keys(runs), *label_keys(arm_configs)])
    return {
        describe_keys(arm_runs[0].select_keys(keys)): sorted(
            arm_runs, key=lambda run: run.result.seed
        )
        for arm_runs in runs_of_arms
    }


def describe_keys(value_by_key: Mapping[str, Any]) -> str:
    """Return key=value pairs joined by commas."""
    return ",".join(f"{key}={format_value(value)}" for key, value in value_by_key.items())


def short_label(value_by_key: Mapping[str, Any]) -> str:
    """Return what distinguishes an arm in few words: `gated_delta, 2 layers, lr=0.001`."""
    short_keys = shortest_endings(value_by_key)
    value_texts = []
    for key, value in value_by_key.items():
        text = format_value(value)
        is_distinct_choice = (
            isinstance(value, str) and text != value and text not in ("-", "none", "default")
        )
        if key == "num_layers" and isinstance(value, int):
            value_texts.append(f"{value} layer{'s' if value != 1 else ''}")
        elif key == "variant" or is_distinct_choice:
            value_texts.append(text)
        else:
            value_texts.append(f"{short_keys[key]}={text}")
    return ", ".join(value_texts)


def format_value(value: Any) -> str:
    """Return a value as an override writes it; a class as its choice, None as `-`."""
    if value is None:
        return "-"
    return choice_name(value) if isinstance(value, str) else json.dumps(value)


def is_written_as(value: Any, text: str) -> bool:
    """Return whether a value is the one that a person wrote: a choice, or the name of a class."""
    spellings = {format_value(value), str(value)}
    if is_class_path(value):
        spellings.add(value.rpartition(".")[2])
        # A choice and the module of its class have the same name.
        spellings.add(value.split(".")[-2])
    return text in spellings


def resolve_key(name: str, keys: Collection[str]) -> str | None:
    """Return the key that a name stands for: `lr` is `optimizer.lr`, if no other key ends so.

    None where the name is no key, and the end of none or of several.
    """
    if name in keys:
        return name
    matches = [key for key in keys if key.endswith(f".{name}")]
    return matches[0] if len(matches) == 1 else None


def suggest_key(name: str, names: Iterable[str]) -> str:
    """Return a hint which of the names was probably meant; `lr` matches `optimizer.lr`."""
    candidates = sorted(names)
    last_parts = {candidate: re.split("[./]", candidate)[-1] for candidate in candidates}
    matches = [candidate for candidate in candidates if last_parts[candidate] == name]
    matches = matches or get_close_matches(name, candidates, n=1)
    if not matches:
        close_parts = get_close_matches(name, sorted(set(last_parts.values())), n=1)
        matches = [candidate for candidate in candidates if last_parts[candidate] in close_parts]
    if not matches:
        return f"there are {', '.join(candidates)}"
    return f"did you mean {' or '.join(matches)}?"


def _flatten_node(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a config node at a dotted path as `{dotted key: value}`."""
    value_by_path: dict[str, Any] = {path: node["_target_"]} if "_target_" in node else {}
    if REVISION in node:
        value_by_path[f"{path}.revision"] = node[REVISION]
    for key, value in node.items():
        child_path = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            value_by_path |= _flatten_node(value, child_path)
        elif not key.startswith("_"):
            value_by_path[child_path] = value
    return value_by_path


def enclosing_paths(key: str) -> list[str]:
    """Return the paths of all config nodes that enclose a dotted key, the outermost first."""
    path_parts = key.split(".")
    return [".".join(path_parts[:length]) for length in range(1, len(path_parts))]
