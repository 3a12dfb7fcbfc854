"""Feed-forward networks, blocks and position schemes of the user's own, tried as mixers are.

`own_parts` tries mixers; what is tried here is called with the same random inputs.
"""

from collections.abc import Callable, Iterator
from inspect import isclass
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.building import build, find_target, first_line
from attnlab.config.config import Config
from attnlab.config.own_parts import LONGEST, is_own
from attnlab.ffn.base import FFN
from attnlab.mixer.base import Mixer, later_tokens_reach_back
from attnlab.model.base import Model
from attnlab.model.block import Block
from attnlab.objective.base import Objective
from attnlab.position.base import Position
from attnlab.signatures import target_nodes_with_keys

MASK = "a causal model gives each position itself and earlier ones alone"


def own_layer_faults(config: Config, objective: Objective, model: Model) -> Iterator[str]:
    """Yield what is wrong with feed-forward networks, position schemes and blocks of one's own.

    `model` is the one of the config, on the meta device. A block is tried last, and only where the
    parts that it is made of have no fault.
    """
    section, d_model = config.values["model"], config.values["model"].get("d_model")
    if not isinstance(d_model, int):
        return
    length = min(objective.max_length, LONGEST)
    trials = {FFN: _ffn_faults, Position: _position_faults, Block: _block_faults}
    for base, find_faults in trials.items():
        faults: list[str] = []
        for key, node in target_nodes_with_keys(section, "model"):
            if not is_own(config, node):
                continue
            layer_class = find_target(node["_target_"], "model", config.user_targets)
            is_such = isclass(layer_class) and issubclass(layer_class, base)
            if is_such and any(type(module) is layer_class for module in model.modules()):
                part_faults = find_faults(config, node, model, d_model, length)
                faults += [f"{key}: {node['_target_']} {fault}" for fault in part_faults]
        yield from faults
        if faults:
            return


def _ffn_faults(
    config: Config, node: dict[str, Any], model: Model, d_model: int, length: int
) -> Iterator[str]:
    """Yield the faults of a feed-forward network; it works on each position alone."""

    def build_ffn() -> nn.Module:
        return _StreamAlone(build(node, "model", config.user_targets)(d_model))

    kind = find_target(node["_target_"], "model", config.user_targets)
    reaches_back, faults = _try_layer(build_ffn, d_model, length, "work on")
    yield from faults
    if reaches_back and not kind.routes_across_tokens:
        yield (
            "gives a position another output where a later token is changed; a feed-forward "
            "network works on each position alone: state `routes_across_tokens = True`, or make "
            "it a mixer"
        )


def _block_faults(
    config: Config, node: dict[str, Any], model: Model, d_model: int, length: int
) -> Iterator[str]:
    """Yield the faults of a block around the mixer and the feed-forward network of the config."""

    def build_block() -> nn.Module:
        position, mixer, ffn = (
            config.build(f"model.{name}") if config.values["model"].get(name) else None
            for name in ("position", "mixer", "ffn")
        )
        scheme = Position(d_model, length) if position is None else position(d_model, length)
        build_layer = build(node, "model", config.user_targets)
        return _StreamAlone(build_layer(d_model, scheme, model.causal, mixer, ffn, 0, False))

    reaches_back, faults = _try_layer(build_block, d_model, length, "work on")
    yield from faults
    if reaches_back and model.causal:
        yield (
            f"gives a position another output where a later token is changed, and {MASK}; leave "
            "what moves between positions to its mixer"
        )


def _position_faults(
    config: Config, node: dict[str, Any], model: Model, d_model: int, length: int
) -> Iterator[str]:
    """Yield the faults of a position scheme: of what the method that it overrides returns."""

    def build_position() -> Position:
        return build(node, "model", config.user_targets)(d_model, length)

    signal = find_target(node["_target_"], "model", config.user_targets).signal
    if signal == "embed":
        reaches_back, faults = _try_layer(
            lambda: _Embeds(build_position()), d_model, length, "embed"
        )
        yield from faults
        if reaches_back and model.causal:
            yield f"gives a position another vector where a later token is changed, and {MASK}"
    elif signal is not None:
        mixers = [module for module in model.modules() if isinstance(module, Mixer)]
        num_heads = next((m.num_heads for m in mixers if hasattr(m, "num_heads")), 1)
        assert isinstance(num_heads, int)
        yield from _signal_faults(build_position, signal, num_heads, d_model, length, model.causal)


def _signal_faults(
    build_position: Callable[[], Position],
    signal: str,
    num_heads: int,
    d_model: int,
    length: int,
    is_causal: bool,
) -> Iterator[str]:
    """Yield what is wrong with the rotated heads, or with the bias of the scores."""
    d_head, positions = d_model // num_heads, torch.arange(length)
    with torch.random.fork_rng([]), torch.no_grad():
        heads = torch.randn(1, num_heads, length, d_head)
        expected_shape = (num_heads, length, length) if signal == "bias" else tuple(heads.shape)
        try:
            position = build_position().eval()
            position.prepare_heads(num_heads, d_head)
            output: Any = (
                position.bias(num_heads, positions, positions, is_causal)
                if signal == "bias"
                else position.rotate(heads, positions)
            )
        except Exception as error:  # Somebody's module can fail in any way.
            yield f"fails in {signal}: {type(error).__name__}: {first_line(error)}"
            return
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != expected_shape:
        yield f"gives {shape} in {signal}; expected a tensor of shape {expected_shape}"
    elif output.isnan().any() or (output == torch.inf).any():
        yield f"gives numbers that are not finite in {signal}"


def _try_layer(
    build_layer: Callable[[], nn.Module], d_model: int, length: int, verb: str
) -> tuple[bool, list[str]]:
    """Return whether later tokens reach back through a layer, and why it cannot work at all."""
    try:
        return later_tokens_reach_back(build_layer, d_model, "it", length, verb), []
    except ValueError as error:
        return False, [first_line(error).removeprefix("it ")]


class _StreamAlone(nn.Module):
    """Gives the stream of a layer that returns losses beside it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        returned = self.layer(x)
        is_pair = isinstance(returned, tuple) and len(returned) == 2
        if not is_pair or not isinstance(returned[1], dict):
            raise TypeError(
                f"it returned a {type(returned).__name__}, expected a tensor and the losses that "
                "training adds, as in `return x, {}`"
            )
        return returned[0]


class _Embeds(nn.Module):
    """Gives token vectors with their positions added."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position

    def forward(self, x: Tensor) -> Tensor:
        return self.position.embed(x, torch.arange(x.shape[1], device=x.device))
