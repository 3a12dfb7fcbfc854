"""Hold a config against the code: every fault at once, before anything is built or written."""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import isclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import DIRECTIVES, NOTHING, Own, build, first_line
from attnlab.config.callbacks import (
    lightning_callbacks,
    lightning_faults,
    recorder_faults,
    recorders,
)
from attnlab.config.composition import composition, parsed
from attnlab.environment import given_path
from attnlab.errors import ConfigError
from attnlab.printable import say
from attnlab.ranges import Count, Positive, Seed
from attnlab.signatures import nearest, target_faults, value_faults

ROOT_KNOBS = {
    "seed": Seed,
    "batch_size": Count,
    "runs_dir": str,
    "rerun": bool,
    "retry": bool,
    "extend": bool,
    "lease": Positive,
}
SECTIONS = ("model", "init", "objective", "optimizer", "schedule", "trainer", "dataset")
COLLECTIONS = ("metric", "callbacks", "evidence", "logger")
UNPACKED = ("debug", "experiment")
"""Groups whose choices change the whole config, and have no section of their own."""


@dataclass(frozen=True)
class Config:
    """A composed and checked config: plain values, and which choice was made in each group."""

    values: dict[str, Any]
    choices: Mapping[str, Any]
    own: Own

    def build(self, key: str, *wiring: Any) -> Any:
        """Make what stands at a dotted key; `wiring` are its positional arguments."""
        node: Any = self.values
        for part in key.split("."):
            node = node[part]
        try:
            if not isinstance(node, dict) or "_target_" not in node:
                raise ValueError(f"expected a choice with a _target_, got {node!r}")
            return build(node, key.split(".")[0], self.own, *wiring)
        except ValueError as error:
            raise ConfigError([f"{key}: {error}"]) from error

    def model(self, objective: Any) -> Any:
        """Make the model that an objective asks."""
        widths = (len(objective.inputs), len(objective.outputs), objective.max_length)
        return self.build("model", *widths, objective.arrangement)

    def parts(self, section: str) -> dict[str, Any]:
        """Make everything in a collection such as `metric`."""
        parts = self.values.get(section) or {}
        names = (name for name, node in parts.items() if node is not None)
        return {name: self.build(f"{section}.{name}") for name in names}


def compose(overrides: Sequence[str], own: Own = NOTHING) -> Config:
    """Compose the train config, and check it against the code, inside `search_path`.

    Raises ConfigError with every fault.
    """
    composed, faults = composition(overrides, own)
    faults += [f"{key}: missing; leave ~{key} out" for key in ROOT_KNOBS if key not in composed]
    if not (composed.get("callbacks") or {}).get("clock"):
        faults.append("callbacks.clock: missing; it says when a run is validated and saved")
    config, found = check(composed, own)
    faults += found
    if not faults:
        faults += [*_beyond_run(config, overrides), *_impossible(config)]
    if faults:
        raise ConfigError(faults)
    return config


def check(composed: DictConfig, own: Own) -> tuple[Config, list[str]]:
    """Hold a composed config against the signatures of what it names; gives it and its faults.

    Where it has a `match`, the model is given the widths that are found.
    """
    values, faults = {}, []
    for key in composed:
        if key != "hydra":
            try:
                node = composed[key]
                is_node = OmegaConf.is_config(node)
                values[key] = OmegaConf.to_container(node, resolve=True) if is_node else node
            except OmegaConfBaseException as error:
                faults.append(f"{key}: {first_line(error)}")
    faults += list(_section_faults(values, own))
    if values.get("runs_dir") == "":
        faults.append("runs_dir: expected a directory, got ''")
    elif isinstance(values.get("runs_dir"), str):
        values["runs_dir"] = str(given_path(values["runs_dir"]))
    choices = composed.hydra.runtime.choices
    config = Config(values, {str(group): choice for group, choice in choices.items()}, own)
    if values.get("match") and not faults:
        try:
            config, said = _matched(config, composed.hydra.overrides.task)
            if said:
                say(said, file=sys.stderr)
        except ConfigError as error:
            faults += error.faults
    return config, faults


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """Set values that a config already has, and check it against the code.

    Raises ConfigError with every fault.
    """
    values = copy.deepcopy(config.values)
    words, faults = parsed(overrides)
    for text, override in words.items():
        if override.is_sweep_override():
            faults.append(f"{text}: one value is expected here; write a list as [a,b]")
            continue
        *path, last = override.key_or_group.split(".")
        node: Any = values
        for part in path:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        if last not in node or last in DIRECTIVES:
            there = [name for name in node if name not in DIRECTIVES]
            faults.append(f"{override.key_or_group}: no such key{nearest(last, there)}")
        else:
            node[last] = override.value()
    faults += list(_section_faults(values, config.own))
    if faults:
        raise ConfigError(faults)
    return replace(config, values=values)


def _section_faults(values: dict[str, Any], own: Own) -> Iterator[str]:
    known = {*ROOT_KNOBS, *SECTIONS, *COLLECTIONS, "match"}
    for key in [key for key in values if key not in known]:
        if key in UNPACKED:
            yield f"{key}: its YAML needs `# @package _global_` as the first line"
        else:
            yield f"{key}: no such key at the root{nearest(key, known)}"
    for key, kind in ROOT_KNOBS.items():
        if key in values:
            yield from value_faults(values, key, kind, key)
    for key, value in values.items():
        yield from _odd_keys(value, key)
    for key in SECTIONS:
        node = values.get(key)
        if not isinstance(node, dict) or "_target_" not in node:
            yield f"{key}: expected a choice with a _target_, got {node!r}"
        else:
            yield from target_faults(node, key, own)
    if values.get("match"):
        yield from target_faults(values["match"], "match", own)
    for section in COLLECTIONS:
        for name, node in (values.get(section) or {}).items():
            if node is not None:
                yield from target_faults(node, f"{section}.{name}", own)


def _odd_keys(value: Any, path: str) -> Iterator[str]:
    """Say which keys of mappings are no texts: a record cannot hold them."""
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                yield f"{path}: the key {key!r} is {type(key).__name__}, expected text in quotes"
            yield from _odd_keys(child, f"{path}.{key}")
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _odd_keys(child, f"{path}[{place}]")


def _matched(config: Config, overrides: Sequence[str]) -> tuple[Config, str]:
    """Give the model the widths that its `match` asks for, as if they had been written."""
    from attnlab.matching import matched

    try:
        objective = config.build("objective")(config.build("dataset"))
    except ValueError:
        # The check of what is impossible says so, with all else that there is to say.
        return config, ""

    def compose_model(words: Sequence[str]) -> Any:
        composed, faults = composition([*words, "match=none"], config.own)
        model: Any = OmegaConf.to_container(composed.model, resolve=True)
        faults += target_faults(model, "model", config.own)
        if faults:
            raise ConfigError([f"match.variant: {fault}" for fault in faults])
        return model

    def build(model: dict[str, Any]) -> Any:
        return replace(config, values={**config.values, "model": model}).model(objective)

    match, values = config.build("match"), config.values
    model, said = matched(match, values, overrides, objective, compose_model, build)
    return replace(config, values={**values, "model": model, "match": {}}), said


BEYOND_RUN = {
    "schedule.warmup_steps": "the learning rate would not reach its peak",
    "trainer.val_check_interval": "nothing would be validated before the last step",
}
"""Knobs that count steps of the run, and what becomes of one that is longer."""


def _beyond_run(config: Config, overrides: Sequence[str]) -> Iterator[str]:
    """Refuse a number of steps that an override states, and that the run does not have.

    What a YAML states is a default for runs of a usual length: a shorter run ends within its
    warm-up, and is validated at its last step.
    """
    stated = {text.lstrip("+").partition("=")[0] for text in overrides}
    max_steps = config.values["trainer"].get("max_steps")
    for key, consequence in BEYOND_RUN.items():
        section, knob = key.split(".")
        steps = config.values[section].get(knob)
        if key in stated and None not in (steps, max_steps) and steps > max_steps:
            yield (
                f"{key}: expected at most trainer.max_steps={max_steps}, got {steps}: {consequence}"
            )


def _impossible(config: Config) -> list[str]:
    """Build everything once where it costs nothing, to refuse in words what cannot work."""
    import torch

    from attnlab.optimizer.base import Optimizer

    faults, built = [], {}
    keys = ["dataset", "optimizer", "schedule", "trainer"]
    for section in ("logger", "metric"):
        nodes = config.values.get(section) or {}
        keys += [f"{section}.{name}" for name, node in nodes.items() if node is not None]
    own = lightning_callbacks(config.values["callbacks"], config.own)
    stop = ["early_stop"] if config.values["callbacks"].get("early_stop") else []
    keys += [f"callbacks.{name}" for name in (*stop, *own)]
    for key in keys:
        try:
            built[key] = config.build(key)
        except ConfigError as error:
            faults += error.faults
    if "optimizer" in built and not isinstance(built["optimizer"], Optimizer):
        kind = type(built["optimizer"]).__name__
        faults.append(
            f"optimizer: expected a class of attnlab.optimizer.base.Optimizer, got a {kind}"
        )
    for name in own:
        if f"callbacks.{name}" in built:
            faults += lightning_faults(name, built[f"callbacks.{name}"])
    try:
        if "trainer" in built:
            settings = built["trainer"]
            wiring = (settings.max_steps, settings.val_check_interval)
            config.build("callbacks.clock")(*wiring)
    except (ConfigError, ValueError) as error:
        faults += getattr(error, "faults", [f"callbacks.clock: {error}"])
    if "dataset" in built:
        dataset = built["dataset"]
        try:
            objective = config.build("objective")(dataset)
        except ValueError as error:
            return [*faults, f"objective: {error}"]
        faults += _unfit_evidence(config, objective, dataset)
        try:
            with torch.device("meta"):
                model = config.model(objective)
        except ConfigError as error:
            return faults + error.faults
        faults += _unfit_callbacks(config, objective, dataset, model)
        try:
            config.build("init")(model)
        except (ConfigError, ValueError) as error:
            faults += getattr(error, "faults", [f"init: {error}"])
    return faults


def _unfit_callbacks(config: Config, objective: Any, dataset: Any, model: Any) -> Iterator[str]:
    """Refuse what cannot be read, recorded or measured."""
    from attnlab.interp.subject import Subject

    callbacks = config.values["callbacks"]
    yield from recorder_faults(callbacks, config.own)
    for name in recorders(callbacks, config.own):
        # One that is not partial has been refused, and cannot be given a subject.
        if callbacks[name].get("_partial_"):
            try:
                config.build(f"callbacks.{name}")(Subject(model, objective))
            except ValueError as error:
                yield from getattr(error, "faults", [f"callbacks.{name}: {error}"])
    if callbacks["clock"]["test_every"] and "test" not in dataset.split_names:
        yield "callbacks.clock.test_every: the dataset has no test split; use null"


def _unfit_evidence(config: Config, objective: Any, dataset: Any) -> Iterator[str]:
    """Refuse evidence that is on something else."""
    from attnlab.evidence.base import Evidence

    for name, node in (config.values.get("evidence") or {}).items():
        if node is None:
            continue
        if not isinstance(node, dict) or not node.get("_partial_"):
            yield f"evidence.{name}: expected `_partial_: true` beside its _target_"
            continue
        kind = config.build(f"evidence.{name}").func
        if not (isclass(kind) and issubclass(kind, Evidence)):
            yield f"evidence.{name}: expected a class of attnlab.evidence.base.Evidence"
            continue
        for part, wanted, given in (
            ("objective", kind.objective_type, objective),
            ("dataset", kind.dataset_type, dataset),
        ):
            if not isinstance(given, wanted):
                said = f"it measures a {wanted.__name__}, and {part} is a {type(given).__name__}"
                yield f"evidence.{name}: {said}; use evidence=none"
