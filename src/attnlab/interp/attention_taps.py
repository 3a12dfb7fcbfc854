"""Record or replace the scores and patterns of a model's attention layers, layer by layer.

with record_patterns(run.model) as patterns:
    run("The animal didn't cross the street because it was too tired.")
for layer, pattern in patterns.items():
    print(layer.name, pattern.shape)  # (batch, head, query, key)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from attnlab.attend import Attend
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.tap import Tap, edit_each

TapName = Literal["scores", "pattern", "rows"]
"""The taps of an `Attend`: before the softmax, after it, and the same a few queries at a time."""


def all_heads(model: Model) -> list[HeadRef]:
    """Return all heads of a model, in the order of its attention layers."""
    return [head for layer in model.attention_layers() for head in layer.heads]


def select_layers(model: Model, layers: Iterable[int] | None = None) -> list[AttentionLayer]:
    """Return the attention layers with these indices (None: all).

    Raises LookupError for an index out of range, and for a model without attention layers.
    """
    layers_of_model = model.attention_layers()
    indices = range(len(layers_of_model)) if layers is None else list(layers)
    if not layers_of_model or any(not 0 <= index < len(layers_of_model) for index in indices):
        raise LookupError(
            f"layers {list(indices)}: the model has {len(layers_of_model)} attention layers"
        )
    return [layers_of_model[index] for index in indices]


def head_indices(
    values: Float[Tensor, "batch head query key"], heads: Sequence[int] | None
) -> list[int]:
    """Return `heads` as a list (None: all). Raises IndexError for a head that the layer lacks."""
    num_heads = values.shape[1]
    if heads is not None and any(not 0 <= head < num_heads for head in heads):
        raise IndexError(f"heads {list(heads)}: the layer has {num_heads} heads")
    return list(range(num_heads) if heads is None else heads)


@contextmanager
def record_patterns(model: Model) -> Iterator[dict[AttentionLayer, Tensor]]:
    """Record the pattern of each attention layer, in the order of the forward pass.

    Raises RuntimeError if no layer passed a pattern: a compiled model does not see hooks added
    after its compilation, so record on the eager module.
    """
    patterns: dict[AttentionLayer, Tensor] = {}

    def record(layer: AttentionLayer, pattern: Tensor) -> None:
        patterns[layer] = pattern.detach()

    with edit_attention(model, "pattern", select_layers(model), record):
        yield patterns
    if not patterns:
        raise RuntimeError("the attention layers heard nothing; run the eager model inside this")


@contextmanager
def edit_attention(
    model: Model,
    tap_name: TapName,
    layers: Iterable[AttentionLayer],
    edit_value: Callable[[AttentionLayer, Tensor], Tensor | None],
) -> Iterator[None]:
    """Replace the values at a tap of `layers` by `change(layer, value)`; None leaves a value."""
    with edit_each({layer: _layer_tap(model, layer, tap_name) for layer in layers}, edit_value):
        yield


def attend_module(model: Model, layer: AttentionLayer) -> Attend:
    """Return the `Attend` module of a layer."""
    attend = model.get_submodule(layer.path)
    assert isinstance(attend, Attend)
    return attend


def _layer_tap(model: Model, layer: AttentionLayer, tap_name: TapName) -> Tap:
    return getattr(attend_module(model, layer), tap_name)
