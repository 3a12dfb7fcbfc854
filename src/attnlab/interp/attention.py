"""What passes the attention layers of a model: read, or replaced, by layer.

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

Place = Literal["scores", "pattern", "rows"]
"""The taps of an `Attend`: before the softmax, after it, and the same a few queries at a time."""


def every_head(model: Model) -> list[HeadRef]:
    """List all heads of a model, from its first attention layer on."""
    return [head for layer in model.attention_layers() for head in layer.heads]


def chosen_layers(model: Model, layers: Iterable[int] | None = None) -> list[AttentionLayer]:
    """Return the attention layers of some numbers (None: all).

    Raises LookupError for one that is not there, and for a model without any.
    """
    existing = model.attention_layers()
    wanted = range(len(existing)) if layers is None else list(layers)
    if not existing or any(not 0 <= layer < len(existing) for layer in wanted):
        raise LookupError(f"layers {list(wanted)}: the model has {len(existing)} attention layers")
    return [existing[layer] for layer in wanted]


def require_heads(
    values: Float[Tensor, "batch head query key"], heads: Sequence[int] | None
) -> list[int]:
    """Return the heads that are meant (None: all). Raises IndexError for one not there."""
    num_heads = values.shape[1]
    if heads is not None and any(not 0 <= head < num_heads for head in heads):
        raise IndexError(f"heads {list(heads)}: the layer has {num_heads} heads")
    return list(range(num_heads) if heads is None else heads)


@contextmanager
def record_patterns(model: Model) -> Iterator[dict[AttentionLayer, Tensor]]:
    """Collect the pattern of each attention layer, in the order of a pass.

    Raises RuntimeError if nothing was heard: a compiled model does not see hooks added after its
    compilation, so record on the eager module.
    """
    patterns: dict[AttentionLayer, Tensor] = {}

    def keep(layer: AttentionLayer, pattern: Tensor) -> None:
        patterns[layer] = pattern.detach()

    with edit_attention(model, "pattern", chosen_layers(model), keep):
        yield patterns
    if not patterns:
        raise RuntimeError("the attention layers heard nothing; run the eager model inside this")


@contextmanager
def edit_attention(
    model: Model,
    place: Place,
    layers: Iterable[AttentionLayer],
    change: Callable[[AttentionLayer, Tensor], Tensor | None],
) -> Iterator[None]:
    """Let `change(layer, value)` replace what passes a place of some layers; None leaves it."""
    with edit_each({layer: _tap(model, layer, place) for layer in layers}, change):
        yield


def attend_of(model: Model, layer: AttentionLayer) -> Attend:
    """Return the module of a layer that attends."""
    attend = model.get_submodule(layer.path)
    assert isinstance(attend, Attend)
    return attend


def _tap(model: Model, layer: AttentionLayer, place: Place) -> Tap:
    return getattr(attend_of(model, layer), place)
