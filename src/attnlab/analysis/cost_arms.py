"""The models whose costs are compared: an arm for each combination of override values."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnlab.building import UserTargets
from attnlab.config import Config, compose_each, search_path, sweep_overrides
from attnlab.errors import ConfigError, RequestError
from attnlab.measure import NUM_TOKENS, MeasuredArm
from attnlab.model.base import DECODER

SHARED = ("accelerator", "threads", "matmul_precision")
"""Settings of the trainer that apply to the process, and therefore to all arms."""


@dataclass(frozen=True)
class CostArms:
    """Models that are measured in turn on one device, and the overrides of each."""

    arms: Sequence[MeasuredArm]
    overrides: Sequence[Sequence[str]]
    device: torch.device


def cost_arms(
    overrides: Sequence[str], *, longest: int, modes: Sequence[str], config_dir: Path | None = None
) -> CostArms:
    """Build a decoder for each combination of the overrides' values, for up to `longest` tokens.

    Only `model`, `init`, `seed` and the trainer's device, threads and precision of a config are
    used; threads and the precision of matrix products are set for the whole process. Raises
    ConfigError with the faults of all arms, and RequestError for arms that cannot be compared.
    """
    with search_path(config_dir) as user_targets:
        combinations = sweep_overrides(overrides)
        configs = _compose_all(combinations, user_targets)
    settings = [config.build("trainer") for config in configs]
    for name in SHARED:
        values = list(dict.fromkeys(getattr(setting, name) for setting in settings))
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise RequestError(f"trainer.{name}={listed}: all arms share one; bench them apart")
    _require_distinct(combinations, configs)
    arms = []
    names = arm_names(combinations, str(configs[0].choices["variant"]))
    for name, config, setting in zip(names, configs, settings, strict=True):
        torch.manual_seed(config.values["seed"])
        model = config.build("model", NUM_TOKENS, NUM_TOKENS, longest, DECODER)
        config.build("init")(model)
        if "decode" in modes and model.state_size(longest) is None:
            raise RequestError(f"{name} cannot run step by step; leave decode out of modes")
        arms.append(MeasuredArm(name, model, setting.precision))
    if settings[0].threads is not None:
        torch.set_num_threads(settings[0].threads)
    torch.set_float32_matmul_precision(settings[0].matmul_precision)
    on_gpu = settings[0].accelerator != "cpu" and torch.cuda.is_available()
    return CostArms(arms, combinations, torch.device("cuda" if on_gpu else "cpu"))


def arm_names(combinations: Sequence[Sequence[str]], default: str) -> list[str]:
    """Return a name for each arm: the overrides that not all arms share.

    A single arm has the name of all its overrides, without those of the trainer.
    """
    shared_overrides = set(combinations[0]).intersection(*combinations[1:])
    if len(combinations) == 1:
        shared_overrides = {
            override for override in shared_overrides if override.startswith("trainer.")
        }
    own_overrides = [
        [override for override in arm_overrides if override not in shared_overrides]
        for arm_overrides in combinations
    ]
    if not own_overrides[0]:
        return [default]
    if len(own_overrides[0]) == 1:
        return [arm_overrides[0].partition("=")[2] for arm_overrides in own_overrides]
    short_keys = [re.split("[/.]", override.partition("=")[0])[-1] for override in own_overrides[0]]
    if len(set(short_keys)) < len(short_keys):
        return [" ".join(arm_overrides) for arm_overrides in own_overrides]
    value_lists = [
        [override.partition("=")[2] for override in arm_overrides]
        for arm_overrides in own_overrides
    ]
    return [
        " ".join(map("=".join, zip(short_keys, arm_values, strict=True)))
        for arm_values in value_lists
    ]


def _compose_all(combinations: Sequence[Sequence[str]], user_targets: UserTargets) -> list[Config]:
    """Compose the configs of all arms. Raises one ConfigError with the faults of all, each once."""
    all_overrides = [
        override.lstrip("+~") for combination in combinations for override in combination
    ]
    if any(override.startswith("match=") for override in all_overrides):
        raise RequestError(
            "match= gives the widths for a training run, of another vocabulary than the models "
            "that are timed; give model.d_model"
        )
    composed = compose_each(dict(enumerate(combinations)), user_targets)
    if composed.faults:
        raise ConfigError(list(composed.faults))
    return list(composed.configs.values())


def _require_distinct(combinations: Sequence[Sequence[str]], configs: Sequence[Config]) -> None:
    """Raise RequestError where two arms are the same model and precision."""
    for index, config in enumerate(configs):
        earlier = next(
            (i for i in range(index) if _measured_config(configs[i]) == _measured_config(config)),
            None,
        )
        if earlier is not None:
            equal_overrides = (
                f"{' '.join(combinations[earlier])!r} and {' '.join(combinations[index])!r}"
            )
            raise RequestError(f"{equal_overrides} are the same model and precision; bench it once")


def _measured_config(config: Config) -> Sequence[Any]:
    """Return the parts of a config that make an arm: model, initialisation and precision."""
    values = config.values
    return values["model"], values["init"], values["trainer"]["precision"]
