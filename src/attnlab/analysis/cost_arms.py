"""The models whose costs are measured beside each other: an arm for each combination of choices."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnlab.building import Own
from attnlab.config import Config, cells, compose, search_path
from attnlab.errors import ConfigError, RequestError
from attnlab.measure import NUM_TOKENS, Arm, state_size
from attnlab.model.base import DECODER

SHARED = ("accelerator", "threads", "matmul_precision")
"""Settings of the trainer that hold for a process, and so for all arms."""


@dataclass(frozen=True)
class CostArms:
    """Models that take turns on a device, and the overrides that made each."""

    arms: Sequence[Arm]
    overrides: Sequence[Sequence[str]]
    device: torch.device


def cost_arms(
    overrides: Sequence[str], *, longest: int, modes: Sequence[str], config_dir: Path | None = None
) -> CostArms:
    """Build a decoder for each combination of the overrides' values, for up to `longest` tokens.

    Of a config, `model`, `init`, `seed` and the trainer's device, threads and precision count;
    threads and the precision of products are set for the whole process. Raises ConfigError with the
    faults of all arms, and RequestError for arms that cannot stand beside each other.
    """
    with search_path(config_dir) as own:
        combinations = cells(overrides)
        configs = _composed(combinations, own)
    settings = [config.build("trainer") for config in configs]
    for name in SHARED:
        values = list(dict.fromkeys(getattr(setting, name) for setting in settings))
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise RequestError(f"trainer.{name}={listed}: all arms share one; bench them apart")
    _require_unlike(combinations, configs)
    arms = []
    names = arm_names(combinations, str(configs[0].choices["variant"]))
    for name, config, setting in zip(names, configs, settings, strict=True):
        torch.manual_seed(config.values["seed"])
        model = config.build("model", NUM_TOKENS, NUM_TOKENS, longest, DECODER)
        config.build("init")(model)
        if "decode" in modes and state_size(model, longest) is None:
            raise RequestError(f"{name} cannot run step by step; leave decode out of --modes")
        arms.append(Arm(name, model, setting.precision))
    if settings[0].threads is not None:
        torch.set_num_threads(settings[0].threads)
    torch.set_float32_matmul_precision(settings[0].matmul_precision)
    on_gpu = settings[0].accelerator != "cpu" and torch.cuda.is_available()
    return CostArms(arms, combinations, torch.device("cuda" if on_gpu else "cpu"))


def arm_names(combinations: Sequence[Sequence[str]], default: str) -> list[str]:
    """Name each arm by what sets it apart from the others, or a single one by what it is."""
    shared = set(combinations[0]).intersection(*combinations[1:])
    if len(combinations) == 1:
        shared = {word for word in shared if word.startswith("trainer.")}
    apart = [[word for word in words if word not in shared] for words in combinations]
    if not apart[0]:
        return [default]
    if len(apart[0]) == 1:
        return [words[0].partition("=")[2] for words in apart]
    keys = [re.split("[/.]", word.partition("=")[0])[-1] for word in apart[0]]
    if len(set(keys)) < len(keys):
        return [" ".join(words) for words in apart]
    values = [[word.partition("=")[2] for word in words] for words in apart]
    return [" ".join(map("=".join, zip(keys, row, strict=True))) for row in values]


def _composed(combinations: Sequence[Sequence[str]], own: Own) -> list[Config]:
    """Compose all arms; one error lists the faults of all of them, each once."""
    words = [word.lstrip("+~") for combination in combinations for word in combination]
    if any(word.startswith("match=") for word in words):
        raise RequestError(
            "match= gives the widths for a training run, of another vocabulary than the models "
            "that are timed; give model.d_model"
        )
    configs: list[Config] = []
    faults: dict[str, None] = {}
    for combination in combinations:
        try:
            configs.append(compose(combination, own))
        except ConfigError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise ConfigError(list(faults))
    return configs


def _require_unlike(combinations: Sequence[Sequence[str]], configs: Sequence[Config]) -> None:
    """Refuse two arms that are one."""
    for at, config in enumerate(configs):
        before = next((n for n in range(at) if _counted(configs[n]) == _counted(config)), None)
        if before is not None:
            both = f"{' '.join(combinations[before])!r} and {' '.join(combinations[at])!r}"
            raise RequestError(f"{both} are the same model and precision; bench it once")


def _counted(config: Config) -> Sequence[Any]:
    values = config.values
    return values["model"], values["init"], values["trainer"]["precision"]
