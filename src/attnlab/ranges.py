"""Which numbers a knob takes, stated in its type: `dropout: ShareBelowOne = 0.0`.

The check of a config reads the types, so that it lists what lies outside with all other faults; a
class or function with `@ranged` reads them itself, so that a direct call refuses the same.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import isclass, signature
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True)
class Between:
    """The finite numbers from `low` to `high`; `below` leaves out `high` itself."""

    low: float | int
    high: float | int
    below: bool = False

    def expected(self, value: float | int) -> str | None:
        """Say what is expected in place of a number that does not lie there; None if it does."""
        if not is_finite(value):
            return "a finite number"
        if value < self.low:
            # The least positive number stands for all of them.
            above_zero = self.low == 1 / LARGEST and value <= 0
            return "more than 0" if above_zero else f"at least {_written(self.low)}"
        if self.below and value >= self.high:
            return f"less than {_written(self.high)}"
        return f"at most {_written(self.high)}" if value > self.high else None


LARGEST = 1e30
"""Numbers up to here, and down to its inverse, leave float32 room for a product."""

Count = Annotated[int, Between(1, 2**31 - 1)]
"""Steps, examples, heads: what there is one of at least."""
CountOrZero = Annotated[int, Between(0, 2**31 - 1)]
FewCount = Annotated[int, Between(1, 1000)]
"""Layers, kinds, hops: what is built one by one."""
FewCountOrZero = Annotated[int, Between(0, 1000)]
Width = Annotated[int, Between(1, 2**16)]
"""An axis of a weight: channels, experts, places of a kernel."""
Tokens = Annotated[int, Between(1, 2**20)]
"""A length in tokens, or the size of a vocabulary."""
Seed = Annotated[int, Between(0, 2**62)]
"""All generators take these, and a record holds no larger whole number."""
Threads = Annotated[int, Between(1, 1024)]
"""More than any one machine has cores; where a process may not start so many, torch crashes."""
Share = Annotated[float, Between(0, 1)]
"""A probability, or a part of a whole."""
ShareBelowOne = Annotated[float, Between(0, 1, below=True)]
"""A share that leaves something: dropout, a decay of Adam, label smoothing."""
Positive = Annotated[float, Between(1 / LARGEST, LARGEST)]
NotNegative = Annotated[float, Between(0, LARGEST)]
Base = Annotated[float, Between(1, LARGEST)]
"""Of a power that falls from 1 with the channel."""
Expansion = Annotated[float, Between(1 / LARGEST, 1024)]
"""A width over another one."""
Weight = Annotated[float | int, Between(0, LARGEST)]
"""Any share of a sum."""
Real = Annotated[float, Between(-LARGEST, LARGEST)]


def is_finite(value: float | int) -> bool:
    """Return whether a number is none of nan and infinity, as a float too."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def finiteness_faults(value: Any, path: str) -> Iterator[str]:
    """Say which numbers of a value, at any depth, are not finite, each with its key."""
    if isinstance(value, (int, float)) and not is_finite(value):
        yield f"{path}: expected a finite number, got {value!r}"
    for key, child in _children(value):
        yield from finiteness_faults(child, f"{path}{key}")


def range_faults(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Say which numbers of a value lie outside of the range that its type states."""
    for place, expected, given in _outside(value, hint, path):
        yield f"{place}: expected {expected}, got {given!r}"


def ranged(target: Target) -> Target:
    """Refuse numbers outside of their ranges when a class or function is called (a decorator).

    Raises ValueError with every fault.
    """
    kind: Any = target
    if isclass(kind):
        kind.__init__ = ranged(kind.__init__)
        return target

    names = [*signature(target).parameters]

    @wraps(target)
    def checked(*args: Any, **kwargs: Any) -> Any:
        hints = get_type_hints(target, include_extras=True)
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        faults = [f for k in arguments for f in range_faults(arguments[k], hints.get(k, Any), k)]
        if faults:
            raise ValueError("; ".join(faults))
        return target(*args, **kwargs)

    return checked  # pyright: ignore[reportReturnType]


def without_range(hint: Any) -> Any:
    """Return a type without the ranges that are stated in it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return without_range(arguments[0])
    plain = tuple(map(without_range, arguments))
    if origin in (Union, UnionType):
        return Union[plain]  # noqa: UP007
    # A type is left as it is spelled where nothing is stated in it.
    return hint if plain == arguments or origin is Callable else origin[plain]  # pyright: ignore


def has_number(hint: Any) -> bool:
    """Return whether values of a type can hold numbers that are not bounded by a range."""
    if get_origin(hint) is Annotated:
        return not any(isinstance(metadata, Between) for metadata in hint.__metadata__)
    return hint in (int, float) or any(map(has_number, get_args(hint)))


def _outside(value: Any, hint: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated and isinstance(value, (int, float)) and not isinstance(value, bool):
        ranges = (metadata for metadata in hint.__metadata__ if isinstance(metadata, Between))
        for expected in filter(None, (bounds.expected(value) for bounds in ranges)):
            yield path, expected, value
    elif origin in (Union, UnionType):
        for member in arguments:
            for place, expected, given in _outside(value, member, path):
                alternative = " or null" if type(None) in arguments and place == path else ""
                yield place, f"{expected}{alternative}", given
    elif arguments and origin is not Callable:
        for key, child in _children(value):
            yield from _outside(child, arguments[-1], f"{path}{key}")


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what lies in a mapping or list, with what a key says of its place."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", child) for key, child in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from ((f"[{place}]", child) for place, child in enumerate(value))


def _written(bound: float | int) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
