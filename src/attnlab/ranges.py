"""The range of numbers that a knob takes, stated in its type: `dropout: ShareBelowOne = 0.0`.

The check of a config reads the types, so that it lists numbers out of range with all other faults.
A class or function with `@ranged` reads them itself, so that a direct call refuses the same.
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
    """The finite numbers from `low` to `high`; `below` excludes `high` itself."""

    low: float | int
    high: float | int
    below: bool = False

    def expectation(self, value: float | int) -> str | None:
        """Return what is expected in place of a number out of the range; None if it is in it."""
        if not is_finite(value):
            return "a finite number"
        if value < self.low:
            # A lower bound of 1 / LARGEST is described as 0 to a person.
            above_zero = self.low == 1 / LARGEST and value <= 0
            return "more than 0" if above_zero else f"at least {_format_bound(self.low)}"
        if self.below and value >= self.high:
            return f"less than {_format_bound(self.high)}"
        return f"at most {_format_bound(self.high)}" if value > self.high else None


LARGEST = 1e30
"""Numbers up to here, and down to its inverse, leave float32 room for a product."""

Count = Annotated[int, Between(1, 2**31 - 1)]
"""Steps, examples, heads: at least one."""
CountOrZero = Annotated[int, Between(0, 2**31 - 1)]
FewCount = Annotated[int, Between(1, 1000)]
"""Layers, kinds, hops: things that are built one by one."""
FewCountOrZero = Annotated[int, Between(0, 1000)]
Width = Annotated[int, Between(1, 2**16)]
"""The size of a weight's axis: channels, experts, positions of a kernel."""
Tokens = Annotated[int, Between(1, 2**20)]
"""A length in tokens, or the size of a vocabulary."""
Seed = Annotated[int, Between(0, 2**62)]
"""All random generators take these, and a record holds no larger integer."""
Threads = Annotated[int, Between(1, 1024)]
"""The limit is above any machine's cores; torch crashes if a process may not start so many."""
Share = Annotated[float, Between(0, 1)]
"""A probability, or a part of a whole."""
ShareBelowOne = Annotated[float, Between(0, 1, below=True)]
"""A share of less than all: dropout, a decay of Adam, label smoothing."""
Positive = Annotated[float, Between(1 / LARGEST, LARGEST)]
NotNegative = Annotated[float, Between(0, LARGEST)]
Base = Annotated[float, Between(1, LARGEST)]
"""The base of a power that falls from 1 with the channel."""
Expansion = Annotated[float, Between(1 / LARGEST, 1024)]
"""The ratio of two widths."""
Weight = Annotated[float | int, Between(0, LARGEST)]
"""A relative weight; the sum of all weights may be any number."""
Real = Annotated[float, Between(-LARGEST, LARGEST)]


def is_finite(value: float | int) -> bool:
    """Return whether a number is neither nan nor infinite, also after conversion to a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def finiteness_faults(value: Any, path: str) -> Iterator[str]:
    """Yield a message for each number of a value, at any depth, that is not finite."""
    if isinstance(value, (int, float)) and not is_finite(value):
        yield f"{path}: expected a finite number, got {value!r}"
    for key, child in _children(value):
        yield from finiteness_faults(child, f"{path}{key}")


def range_faults(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Yield a message for each number of a value that is outside the range that its type states."""
    for number_path, expected, number in _numbers_out_of_range(value, hint, path):
        yield f"{number_path}: expected {expected}, got {number!r}"


def ranged(target: Target) -> Target:
    """Decorate a class or function to refuse numbers outside their ranges when it is called.

    The call raises ValueError with every fault.
    """
    class_or_function: Any = target
    if isclass(class_or_function):
        class_or_function.__init__ = ranged(class_or_function.__init__)
        return target

    names = [*signature(target).parameters]

    @wraps(target)
    def checked_call(*args: Any, **kwargs: Any) -> Any:
        hints = get_type_hints(target, include_extras=True)
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        faults = [
            fault
            for name, argument in arguments.items()
            for fault in range_faults(argument, hints.get(name, Any), name)
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return target(*args, **kwargs)

    return checked_call  # pyright: ignore[reportReturnType]


def without_ranges(hint: Any) -> Any:
    """Return a type without the ranges that are stated in it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return without_ranges(arguments[0])
    plain_types = tuple(map(without_ranges, arguments))
    if origin in (Union, UnionType):
        return Union[plain_types]  # noqa: UP007
    # A type without a range in it is returned as it is spelled.
    return hint if plain_types == arguments or origin is Callable else origin[plain_types]  # pyright: ignore


def has_unbounded_number(hint: Any) -> bool:
    """Return whether values of a type can hold numbers that are not bounded by a range."""
    if get_origin(hint) is Annotated:
        return not any(isinstance(metadata, Between) for metadata in hint.__metadata__)
    return hint in (int, float) or any(map(has_unbounded_number, get_args(hint)))


def _numbers_out_of_range(value: Any, hint: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the path of each number out of its range, what is expected, and the number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated and isinstance(value, (int, float)) and not isinstance(value, bool):
        ranges_of_type = [bounds for bounds in hint.__metadata__ if isinstance(bounds, Between)]
        for expected in filter(None, (bounds.expectation(value) for bounds in ranges_of_type)):
            yield path, expected, value
    elif origin in (Union, UnionType):
        for member in arguments:
            out_of_range = _numbers_out_of_range(value, member, path)
            for number_path, expected, number in out_of_range:
                alternative = " or null" if type(None) in arguments and number_path == path else ""
                yield number_path, f"{expected}{alternative}", number
    elif arguments and origin is not Callable:
        for key, child in _children(value):
            yield from _numbers_out_of_range(child, arguments[-1], f"{path}{key}")


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a mapping or list, each with its key as a path writes it."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", child) for key, child in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from ((f"[{index}]", child) for index, child in enumerate(value))


def _format_bound(bound: float | int) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
