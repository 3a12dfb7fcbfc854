"""From overrides to a checked config: every fault at once, before anything is built or written."""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import NOTHING, UserTargets, first_line
from attnlab.config.check import signature_faults
from attnlab.config.composition import composition
from attnlab.config.config import ROOT_KNOBS, Config
from attnlab.config.run_name import overridden, sweep_faults, varied_keys
from attnlab.environment import given_path
from attnlab.errors import ConfigError
from attnlab.signatures import target_faults

Name = TypeVar("Name", bound=Hashable)


def compose(overrides: Sequence[str], own: UserTargets = NOTHING) -> Config:
    """Return the train config with some overrides, checked against the code, in `search_path`.

    With a `match`, the model has the widths that it finds. Raises ConfigError with every fault.
    """
    composed, faults = composition(overrides, own)
    faults += [f"{key}: missing; leave ~{key} out" for key in ROOT_KNOBS if key not in composed]
    if not (composed.get("callbacks") or {}).get("cadence"):
        faults.append("callbacks.cadence: missing; it says when a run is validated and saved")
    values, unresolved = _plain_values(composed)
    faults += [*unresolved, *signature_faults(values, own)]
    if values.get("runs_dir") == "":
        faults.append("runs_dir: expected a directory, got ''")
    faults += sweep_faults(values.get("sweep"))
    if faults:
        raise ConfigError(faults)
    values["runs_dir"] = str(given_path(values["runs_dir"]))
    choices = {str(group): choice for group, choice in composed.hydra.runtime.choices.items()}
    config = Config(values, choices, own, overrides=tuple(composed.hydra.overrides.task))
    if values.get("match"):
        config = _with_matched_widths(config, composed.hydra.overrides.task)
    # What follows needs torch, and what has been refused by now needs none.
    from attnlab.config.feasibility import infeasible, too_many_steps

    if faults := [*too_many_steps(config, overrides), *infeasible(config)]:
        raise ConfigError(faults, is_impossible=True)
    return replace(config, notes=(*config.notes, *_thread_notes(config, overrides)))


@dataclass(frozen=True)
class ComposedEach(Generic[Name]):
    """Several configs by name, and who has each of the faults of the others."""

    configs: dict[Name, Config] = field(default_factory=dict)
    mistakes: dict[str, list[Name]] = field(default_factory=dict)
    """Faults of what was written, such as a choice that there is not."""
    impossible: dict[str, list[Name]] = field(default_factory=dict)
    """Faults of parts that are right and do not fit together."""

    @property
    def faults(self) -> dict[str, list[Name]]:
        return {**self.mistakes, **self.impossible}


def compose_each(
    overrides_by_name: Mapping[Name, Sequence[str]], own: UserTargets = NOTHING
) -> ComposedEach[Name]:
    """Compose several configs, whatever faults some of them have."""
    composed: ComposedEach[Name] = ComposedEach()
    for name, overrides in overrides_by_name.items():
        try:
            composed.configs[name] = compose(overrides, own)
        except ConfigError as error:
            faults = composed.impossible if error.is_impossible else composed.mistakes
            for fault in error.faults:
                faults.setdefault(fault, []).append(name)
    swept = frozenset(varied_keys([*map(overridden, overrides_by_name.values())]))
    for name, config in composed.configs.items():
        composed.configs[name] = replace(config, swept=swept)
    return composed


def threads_each(overrides: Sequence[str], jobs: int, threads: int) -> list[str]:
    """Return the override that shares the cores among runs at once, unless one says how."""
    is_stated = any(override.startswith("trainer.threads=") for override in overrides)
    return [] if jobs == 1 or is_stated else [f"trainer.threads={max(1, threads // jobs)}"]


def _thread_notes(config: Config, overrides: Sequence[str]) -> list[str]:
    """Return a sentence where more threads are asked for than the machine has cores."""
    threads, num_cores = config.values["trainer"].get("threads"), os.cpu_count()
    is_stated = any(override.startswith("trainer.threads=") for override in overrides)
    if not is_stated or threads is None or num_cores is None or threads <= num_cores:
        return []
    return [
        f"trainer.threads={threads} is more than the {num_cores} cores of this machine: threads "
        "wait for each other, and training is slower"
    ]


def _plain_values(composed: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the sections of a composed config as plain values, and why some cannot be resolved."""
    values, faults = {}, []
    for key in composed:
        if key == "hydra":
            continue
        try:
            node = composed[key]
            is_node = OmegaConf.is_config(node)
            values[str(key)] = OmegaConf.to_container(node, resolve=True) if is_node else node
        except OmegaConfBaseException as error:
            faults.append(f"{key}: {first_line(error)}")
    return values, faults


def _with_matched_widths(config: Config, overrides: Sequence[str]) -> Config:
    """Return the config with the widths that its `match` finds, as if they had been written.

    Raises ConfigError where it finds none.
    """
    from attnlab.matching import match_widths

    try:
        objective = config.build("objective")(config.build("dataset"))
    except ValueError:
        # The search for what is infeasible says so, with all else that there is to say.
        return config

    def compose_model(model_overrides: Sequence[str]) -> Any:
        composed, faults = composition([*model_overrides, "match=none"], config.own)
        model: Any = OmegaConf.to_container(composed.model, resolve=True)
        faults += target_faults(model, "model", config.own)
        if faults:
            raise ConfigError([f"match.variant: {fault}" for fault in faults])
        return model

    def build(model: dict[str, Any]) -> Any:
        return replace(config, values={**config.values, "model": model}).model(objective)

    match, values = config.build("match"), config.values
    model, note = match_widths(match, values, overrides, objective, compose_model, build)
    notes = (*config.notes, note) if note else config.notes
    return replace(config, values={**values, "model": model, "match": {}}, notes=notes)
