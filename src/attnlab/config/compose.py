"""From overrides to a checked config: every fault at once, before anything is built or written."""

import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import NO_USER_TARGETS, UserTargets, first_line
from attnlab.config.check import convert_config_numbers, root_faults, signature_faults
from attnlab.config.composition import compose_with_faults, overrides_only_choose
from attnlab.config.config import ROOT_KNOBS, Config
from attnlab.config.hints import load_choice
from attnlab.config.run_name import override_values, sweep_faults, varied_keys
from attnlab.environment import expand_home
from attnlab.errors import ConfigError
from attnlab.signatures import convert_whole_numbers, target_faults

DEFAULT_OPTIMIZER = "adamw"
"""The optimizer that datasets state learning rates for."""
Name = TypeVar("Name", bound=Hashable)


def compose(overrides: Sequence[str], user_targets: UserTargets = NO_USER_TARGETS) -> Config:
    """Return the train config with some overrides, checked against the code, in `search_path`.

    With a `match`, the model has the widths that it finds. Raises ConfigError with every fault.
    """
    composed_config, faults = compose_with_faults(overrides, user_targets)
    faults += [
        f"{key}: missing; leave ~{key} out" for key in ROOT_KNOBS if key not in composed_config
    ]
    if not (composed_config.get("callbacks") or {}).get("cadence"):
        faults.append(
            "callbacks.cadence: missing; it says when a run is validated and saved. Begin a "
            "YAML of your own with `defaults: [default]`"
        )
    values, unresolved_faults = _plain_values(composed_config)
    faults += unresolved_faults
    # Torch takes seconds to import. Where a word was misspelt and no other sets a knob, all knobs
    # are those of conf/, which fit.
    if faults and not user_targets.config_dir and overrides_only_choose(composed_config):
        faults += root_faults(values)
    else:
        faults += signature_faults(values, user_targets)
    if values.get("runs_dir") == "":
        faults.append("runs_dir: expected a directory, got ''")
    faults += sweep_faults(values.get("sweep"))
    if faults:
        raise ConfigError(faults)
    convert_config_numbers(values, user_targets)
    values["runs_dir"] = str(expand_home(values["runs_dir"]))
    choices = {
        str(group): choice for group, choice in composed_config.hydra.runtime.choices.items()
    }
    config = Config(values, choices, user_targets, overrides=_without_launcher(composed_config))
    if values.get("match"):
        config = _config_with_matched_widths(config, composed_config.hydra.overrides.task)
    # What follows needs torch, and what has been refused by now needs none.
    from attnlab.config.feasibility import feasibility_faults, step_count_faults

    if faults := [*step_count_faults(config, overrides), *feasibility_faults(config)]:
        raise ConfigError(faults, is_impossible=True)
    notes = [*_thread_notes(config, overrides), *_optimizer_notes(config, overrides)]
    return replace(config, notes=(*config.notes, *notes))


@dataclass(frozen=True)
class ComposedConfigs(Generic[Name]):
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
    overrides_by_name: Mapping[Name, Sequence[str]], user_targets: UserTargets = NO_USER_TARGETS
) -> ComposedConfigs[Name]:
    """Compose several configs, whatever faults some of them have."""
    composed_configs: ComposedConfigs[Name] = ComposedConfigs()
    for name, overrides in overrides_by_name.items():
        try:
            composed_configs.configs[name] = compose(overrides, user_targets)
        except ConfigError as error:
            faults = (
                composed_configs.impossible if error.is_impossible else composed_configs.mistakes
            )
            for fault in error.faults:
                faults.setdefault(fault, []).append(name)
    swept_keys = frozenset(varied_keys([*map(override_values, overrides_by_name.values())]))
    for name, config in composed_configs.configs.items():
        composed_configs.configs[name] = replace(config, swept_keys=swept_keys)
    return composed_configs


def share_cores(
    configs: Sequence[Config], jobs: int, threads: int, *, always: bool = False
) -> list[Config]:
    """Return the configs with the cores shared among runs at once, unless they say how.

    `threads` is what one run alone would have. The share is as if an override had stated it, since
    it is a part of what a run is; a run alone states none unless `always`.
    """
    if jobs == 1 and not always:
        return [*configs]
    share = max(1, threads // jobs)
    return [
        config
        if config.values["trainer"].get("threads") is not None
        else replace(
            config,
            values={**config.values, "trainer": {**config.values["trainer"], "threads": share}},
            overrides=(*config.overrides, f"trainer.threads={share}"),
        )
        for config in configs
    ]


def _without_launcher(composed_config: DictConfig) -> tuple[str, ...]:
    """Return the overrides but for those that say where a run is done, which change no run."""
    overrides = composed_config.hydra.overrides.task
    return tuple(text for text in overrides if not re.match(r"[+~]*launcher\b", text))


def _thread_notes(config: Config, overrides: Sequence[str]) -> list[str]:
    """Return a sentence where more threads are asked for than the machine has cores."""
    threads, num_cores = config.values["trainer"].get("threads"), os.cpu_count()
    states_threads = any(override.startswith("trainer.threads=") for override in overrides)
    if not states_threads or threads is None or num_cores is None or threads <= num_cores:
        return []
    return [
        f"trainer.threads={threads} is more than the {num_cores} cores of this machine: threads "
        "wait for each other, and training is slower"
    ]


def _optimizer_notes(config: Config, overrides: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each knob that a dataset states for AdamW and another optimizer gets."""
    optimizer, dataset = (str(config.choices.get(group)) for group in ("optimizer", "dataset"))
    if optimizer == DEFAULT_OPTIMIZER:
        return
    overridden_keys = {text.lstrip("+").partition("=")[0] for text in overrides}
    own_values = load_choice("optimizer", optimizer)
    for knob, value in load_choice("dataset", dataset).get("optimizer", {}).items():
        key = f"optimizer.{knob}"
        is_used = config.values["optimizer"].get(knob) == value
        if is_used and key not in overridden_keys and own_values.get(knob) != value:
            yield (
                f"{key}={value} is from dataset={dataset}, which chose it for {DEFAULT_OPTIMIZER}; "
                f"optimizer={optimizer} states {own_values.get(knob)}: write {key}=NUMBER for yours"
            )


def _plain_values(composed_config: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the sections of a composed config as plain values, and why some cannot be resolved."""
    values, faults = {}, []
    for key in composed_config:
        if key == "hydra":
            continue
        try:
            node = composed_config[key]
            is_node = OmegaConf.is_config(node)
            values[str(key)] = OmegaConf.to_container(node, resolve=True) if is_node else node
        except OmegaConfBaseException as error:
            faults.append(f"{key}: {first_line(error)}")
    return values, faults


def _config_with_matched_widths(config: Config, overrides: Sequence[str]) -> Config:
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
        composed_config, faults = compose_with_faults(
            [*model_overrides, "match=none"], config.user_targets
        )
        model: Any = OmegaConf.to_container(composed_config.model, resolve=True)
        faults += target_faults(model, "model", config.user_targets)
        if faults:
            raise ConfigError([f"match.variant: {fault}" for fault in faults])
        convert_whole_numbers(model, "model", config.user_targets)
        return model

    def build_matched_model(model: dict[str, Any]) -> Any:
        return replace(config, values={**config.values, "model": model}).build_model(objective)

    match, values = config.build("match"), config.values
    model, note = match_widths(
        match, values, overrides, objective, compose_model, build_matched_model
    )
    notes = (*config.notes, note) if note else config.notes
    return replace(config, values={**values, "model": model, "match": {}}, notes=notes)
