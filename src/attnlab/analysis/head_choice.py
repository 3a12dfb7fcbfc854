"""The layer and head that a person chooses: by numbers, by names, or by a `HeadRef`."""

from collections.abc import Sequence
from operator import index
from typing import SupportsIndex

from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer, HeadRef

Choice = SupportsIndex | str | None
"""A number from 0 of any integer type, a name, or None for no choice."""


def parse_layer_and_head(layer: Choice, head: Choice | HeadRef) -> tuple[int | str | None, ...]:
    """Return the chosen layer and head as numbers or names; a `HeadRef` chooses both.

    Raises RequestError for what is neither, and for a `HeadRef` of another layer than `layer`.
    """
    layer_choice = parse_number_or_name("layer", layer)
    if not isinstance(head, HeadRef):
        return layer_choice, parse_number_or_name("head", head)
    if layer_choice not in (None, head.layer):
        raise RequestError(f"head {head} is not of layer {layer_choice}; leave the layer out")
    return head.layer, head.head


def parse_number_or_name(option: str, value: Choice) -> int | str | None:
    """Return a choice as a number, where it is one or the digits of one, or as a name.

    Raises RequestError for what is neither, such as 0.5.
    """
    if value is None or isinstance(value, str):
        return int(value) if value is not None and value.isdecimal() else value
    return require_number(option, value, "a number from 0 or a name")


def require_number(option: str, value: SupportsIndex, expected: str = "a number from 0") -> int:
    """Return an integer of any type as an int. Raises RequestError for what is none."""
    try:
        return index(value)
    except TypeError:
        raise RequestError(
            f"{option} {value!r}: expected {expected}, got {type(value).__name__}"
        ) from None


def select_heads(
    layers: Sequence[AttentionLayer], named_layers: str | None, named_heads: str | None
) -> list[HeadRef] | None:
    """Return the heads that two lists select: "0,1" of layers, and of heads "2,3" or "L1H2,L0H1".

    Numbers of heads mean these heads of each layer. None without both lists. Raises RequestError
    for a list that cannot be read, and for a layer or head that the model lacks.
    """
    if named_layers is None and named_heads is None:
        return None
    if named_heads is not None and "L" in named_heads:
        return _parse_head_names(layers, named_layers, named_heads)
    layer_ids, head_ids = _parse_ids("layers", named_layers), _parse_ids("heads", named_heads)
    for layer_id in layer_ids or ():
        if layer_id >= len(layers):
            count_text = f"{len(layers)} attention layer{'s' * (len(layers) > 1)}"
            raise RequestError(f"--layers {layer_id}: the model has {count_text}")
    selected_layers = [layer for layer in layers if layer_ids is None or layer.index in layer_ids]
    for head_id in head_ids or ():
        for layer in selected_layers:
            if head_id >= layer.num_heads:
                count_text = f"{layer.num_heads} head{'s' * (layer.num_heads > 1)}"
                raise RequestError(f"--heads {head_id}: {layer.name} has {count_text}")
    heads = [head for layer in selected_layers for head in layer.heads]
    return heads if head_ids is None else [head for head in heads if head.head in head_ids]


def _parse_head_names(
    layers: Sequence[AttentionLayer], named_layers: str | None, named_heads: str
) -> list[HeadRef]:
    """Parse names of heads as tables show them, such as L1H2."""
    if named_layers is not None:
        raise RequestError(f"--heads {named_heads} names the layers too; leave --layers out")
    heads = []
    for name in named_heads.split(","):
        try:
            head = HeadRef.from_name(name)
        except ValueError as error:
            raise RequestError(
                f"--heads {named_heads}: expected numbers from 0, as in --heads 0,2, or names of "
                "heads, as in --heads L0H1,L1H2"
            ) from error
        if head not in [existing_head for layer in layers for existing_head in layer.heads]:
            raise RequestError(f"--heads {name}: the model has no such head")
        heads.append(head)
    return heads


def _parse_ids(option: str, text: str | None) -> list[int] | None:
    """Parse the numbers that --layers or --heads lists."""
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise RequestError(f"--{option} {text}: expected numbers from 0, as in --{option} 0,2")
    return sorted({int(part) for part in text.split(",")})
