"""The layer and head that a person chooses: by numbers, by names, or by a `HeadRef`."""

from operator import index
from typing import SupportsIndex

from attnlab.errors import RequestError
from attnlab.layers import HeadRef

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
