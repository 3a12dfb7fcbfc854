"""From overrides to a checked config: every fault at once, before anything is built or written."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import NOTHING, UserTargets, first_line
from attnlab.config.check import signature_faults
from attnlab.config.composition import composition
from attnlab.config.config import ROOT_KNOBS, Config
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
    if faults:
        raise ConfigError(faults)
    values["runs_dir"] = str(given_path(values["runs_dir"]))
    choices = composed.hydra.runtime.choices
    config = Config(values, {str(group): choice for group, choice in choices.items()}, own)
    if values.get("match"):
        config = _with_matched_widths(config, composed.hydra.overrides.task)
    # What follows needs torch, and what has been refused by now needs none.
    from attnlab.config.feasibility import infeasible, too_many_steps

    if faults := [*too_many_steps(config, overrides), *infeasible(config)]:
        raise ConfigError(faults)
    return config


def compose_each(
    overrides_by_name: Mapping[Name, Sequence[str]], own: UserTargets = NOTHING
) -> tuple[dict[Name, Config], dict[str, list[Name]]]:
    """Compose several configs; return those without faults, and who has each of the faults."""
    configs: dict[Name, Config] = {}
    faults: dict[str, list[Name]] = {}
    for name, overrides in overrides_by_name.items():
        try:
            configs[name] = compose(overrides, own)
        except ConfigError as error:
            for fault in error.faults:
                faults.setdefault(fault, []).append(name)
    return configs, faults


def threads_each(overrides: Sequence[str], jobs: int, threads: int) -> list[str]:
    """Return the override that shares the cores among runs at once, unless one says how."""
    is_stated = any(override.startswith("trainer.threads=") for override in overrides)
    return [] if jobs == 1 or is_stated else [f"trainer.threads={max(1, threads // jobs)}"]


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
