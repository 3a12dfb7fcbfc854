"""What parts of the user's own do, tried on a tiny input before training; ours are not tried."""

import math
from collections.abc import Iterator
from inspect import isclass
from typing import Any

import torch

from attnlab.building import build, find_target, first_line
from attnlab.config.config import Config
from attnlab.mixer.base import Mixer, later_tokens_reach_back
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.optimizer.base import Optimizer
from attnlab.position.base import Position
from attnlab.schedule.base import Schedule
from attnlab.signatures import target_nodes_with_keys

LONGEST = 512
"""Tokens of the sequences that a mixer is tried on, at most; chunks of a power of two fit."""


def own_mixer_faults(config: Config, objective: Objective, model: Model) -> Iterator[str]:
    """Yield what is wrong with mixers of the user's own: their shape, what they see and ignore.

    `model` is the one of the config, on the meta device.
    """
    section, d_model = config.values["model"], config.values["model"].get("d_model")
    for key, node in target_nodes_with_keys(section, "model"):
        if not is_own(config, node) or not isinstance(d_model, int):
            continue
        mixer_class = find_target(node["_target_"], "model", config.user_targets)
        if not (isclass(mixer_class) and issubclass(mixer_class, Mixer)):
            continue
        instances = [module for module in model.modules() if type(module) is mixer_class]
        if instances:
            is_causal = any(getattr(mixer, "causal", True) for mixer in instances)
            faults = _mixer_faults(config, node, objective, d_model, is_causal)
            yield from (f"{key}: {fault}" for fault in faults)


def own_optimizer_faults(config: Config, optimizer: Any, model: Model) -> Iterator[str]:
    """Yield why an optimizer of the user's own cannot move the weights of a model.

    A model on the meta device gets memory for its weights, and no values.
    """
    node = config.values["optimizer"]
    if not is_own(config, node) or not isinstance(optimizer, Optimizer):
        return
    name = node["_target_"]
    if not (hasattr(optimizer, "lr") and hasattr(optimizer, "gradient_clip")):
        yield f"optimizer: {name} must call super().__init__(lr, gradient_clip) in its constructor"
        return
    try:
        torch_optimizer = optimizer.build(model.to_empty(device="cpu"))
    except Exception as error:  # A class of the user's own can fail in any way.
        yield f"optimizer: {name}.build fails: {type(error).__name__}: {first_line(error)}"
        return
    if not isinstance(torch_optimizer, torch.optim.Optimizer):
        returned = "None" if torch_optimizer is None else f"a {type(torch_optimizer).__name__}"
        yield (
            f"optimizer: {name}.build returned {returned}, expected a torch.optim.Optimizer; end "
            "it with `return torch.optim.SGD(model.parameters(), lr=self.lr)` or another one"
        )


def own_schedule_faults(config: Config, schedule: Any, max_steps: int) -> Iterator[str]:
    """Yield why a schedule of the user's own gives no learning rate at its first or last step."""
    node = config.values["schedule"]
    if not is_own(config, node) or not isinstance(schedule, Schedule):
        return
    for step in sorted({0, max_steps - 1}):
        call = f"schedule: {node['_target_']}.scale({step}, {max_steps})"
        try:
            scale: Any = schedule.scale(step, max_steps)
        except Exception as error:  # A class of the user's own can fail in any way.
            yield f"{call} fails: {type(error).__name__}: {first_line(error)}"
            return
        if not isinstance(scale, int | float) or not math.isfinite(scale):
            yield f"{call} returned {scale!r}, expected a finite number that scales optimizer.lr"
            return


def is_own(config: Config, node: dict[str, Any]) -> bool:
    """Return whether a part of the config is a class of the user's own."""
    name = node["_target_"]
    return name in config.user_targets.targets and not name.startswith("attnlab.")


def _mixer_faults(
    config: Config, node: dict[str, Any], objective: Objective, d_model: int, is_causal: bool
) -> Iterator[str]:
    """Yield the faults of one mixer, which is tried on sequences of the objective's length."""
    name, length = node["_target_"], min(objective.max_length, LONGEST)
    scheme_node = config.values["model"].get("position")
    calls: list[str] = []
    tried: list[tuple[Mixer, Position]] = []

    def build_mixer() -> Mixer:
        position = Position(d_model, length)
        if scheme_node is not None:
            position = config.build("model.position")(d_model, length)
        _listen(position, calls)
        mixer = build(node, "model", config.user_targets)(d_model, position, is_causal, 0)
        tried.append((mixer, position))
        return mixer

    try:
        reaches_back = later_tokens_reach_back(build_mixer, d_model, name, length)
    except ValueError as error:
        yield str(error)
        return
    ((mixer, position),) = tried
    if reaches_back and (is_causal or mixer.unidirectional):
        why = f"{type(objective).__name__} lets a position see itself and earlier ones alone"
        if not is_causal:
            why = "it states `unidirectional = True`"
        yield (
            f"{name} gives a position another output where a later token is changed, and "
            f"{why}; mask the later ones where `causal` is true, as attnlab.attend.Attend(causal, "
            "...) does"
        )
    signal = position.signal
    if signal in mixer.position_inputs and signal not in calls:
        yield (
            f"{name} states {signal!r} in position_inputs and never calls "
            f"self.position.{signal}, so that {type(position).__name__} has no effect; call "
            "it, or leave it out"
        )


def _listen(position: Position, calls: list[str]) -> None:
    """Let a position scheme note its signal in `calls` when it is asked for it."""
    signal = position.signal
    if signal not in ("rotate", "bias"):
        return
    ask = getattr(position, signal)

    def noted_call(*args: Any, **kwargs: Any) -> Any:
        calls.append(signal)
        return ask(*args, **kwargs)

    setattr(position, signal, noted_call)
