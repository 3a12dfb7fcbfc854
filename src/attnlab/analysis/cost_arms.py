"""The models whose costs are compared: an arm for each combination of override values."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attnlab.building import UserTargets
from attnlab.config import Config, compose_each, search_path, sweep_overrides
from attnlab.errors import ConfigError, RequestError
from attnlab.measure import NUM_TOKENS, MeasuredArm
from attnlab.model.base import DECODER

if TYPE_CHECKING:
    # It imports Lightning, which takes seconds.
    from attnlab.training import Settings

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
    trainers = [config.build("trainer") for config in configs]
    _require_shared_settings(trainers)
    _require_distinct_arms(combinations, configs)
    arms = []
    names = arm_names(combinations, str(configs[0].choices["variant"]))
    for name, config, trainer in zip(names, configs, trainers, strict=True):
        torch.manual_seed(config.values["seed"])
        model = config.build("model", NUM_TOKENS, NUM_TOKENS, longest, DECODER)
        config.build("init")(model)
        if "decode" in modes and model.state_size(longest) is None:
            raise RequestError(f"{name} cannot run step by step; leave decode out of modes")
        arms.append(MeasuredArm(name, model, trainer.precision))
    shared_settings = trainers[0]
    if shared_settings.threads is not None:
        torch.set_num_threads(shared_settings.threads)
    torch.set_float32_matmul_precision(shared_settings.matmul_precision)
    on_gpu = shared_settings.accelerator != "cpu" and torch.cuda.is_available()
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
    keys = [override.partition("=")[0] for override in own_overrides[0]]
    last_parts = [re.split("[/.]", key)[-1] for key in keys]
    if len(set(last_parts)) < len(last_parts):
        return [" ".join(arm_overrides) for arm_overrides in own_overrides]
    values_of_arms = [
        [override.partition("=")[2] for override in arm_overrides]
        for arm_overrides in own_overrides
    ]
    return [
        " ".join(
            f"{last_part}={value}" for last_part, value in zip(last_parts, values, strict=True)
        )
        for values in values_of_arms
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
    compositions = compose_each(dict(enumerate(combinations)), user_targets)
    if compositions.faults:
        raise ConfigError(list(compositions.faults))
    return list(compositions.configs.values())


def _require_shared_settings(trainers: Sequence["Settings"]) -> None:
    """Raise RequestError where arms differ in a setting of the whole process."""
    for name in SHARED:
        values = list(dict.fromkeys(getattr(trainer, name) for trainer in trainers))
        if len(values) > 1:
            value_text = ", ".join(map(str, values))
            raise RequestError(f"trainer.{name}={value_text}: all arms share one; bench them apart")


def _require_distinct_arms(
    combinations: Sequence[Sequence[str]], configs: Sequence[Config]
) -> None:
    """Raise RequestError where two arms are the same model and precision."""
    for index, config in enumerate(configs):
        for earlier_index in range(index):
            if _measured_config(configs[earlier_index]) == _measured_config(config):
                equal_overrides = (
                    f"{' '.join(combinations[earlier_index])!r} and "
                    f"{' '.join(combinations[index])!r}"
                )
                raise RequestError(
                    f"{equal_overrides} are the same model and precision; bench it once"
                )


def _measured_config(config: Config) -> Sequence[Any]:
    """Return the parts of a config that make an arm: model, initialisation and precision."""
    values = config.values
    return values["model"], values["init"], values["trainer"]["precision"]
