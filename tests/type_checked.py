"""Types and shapes, checked at each call of attnlab's functions while the tests run.

jaxtyping's import hook puts `jaxtyping.jaxtyped` on each `def`. That compiles two checks whenever
one runs, so each time anew for a function within a function, and checks each parameter twice: 40%
of the time of the tests. `type_checked` asks the same two libraries, and compiles nothing twice.
Importing this module puts it in jaxtyping's place, so tests/conftest.py does so before all else.
"""

import inspect
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import wraps
from types import CodeType, NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints, is_typeddict

import jaxtyping
from beartype.door import is_bearable
from jaxtyping import AbstractArray, TypeCheckError, config, jaxtyped

Check = Callable[[Any], bool]

ANYTHING = (Any, object, NoReturn, inspect.Parameter.empty)
"""Annotations that say nothing of a value."""


@dataclass(frozen=True)
class Checks:
    """What a function states of its parameters and its result; None where it states nothing."""

    annotations: dict[str, Any]
    positional: list[tuple[str, Check | None]]
    named: dict[str, Check | None]
    more_positional: tuple[str, Check | None]
    more_named: Check | None
    returned: Check | None
    has_shapes: bool


_CHECKS_BY_CODE: dict[int, tuple[CodeType, Checks]] = {}


def type_checked(function: Any = None, **_: Any) -> Any:
    """Return a function that checks its arguments and its result, or such a dataclass.

    It is called as `jaxtyping.jaxtyped` is; the type checker is beartype whatever is asked for.
    """
    if function is None:
        return type_checked
    if inspect.isclass(function):
        init: Any = vars(function).get("__init__")
        # What wraps a dataclass's `__init__` refuses wrong values in its own words.
        if is_dataclass(function) and init is not None and init.__globals__ is not globals():
            setattr(function, "__init__", type_checked(init))  # noqa: B010
        return function
    checks: Checks | None = None

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checks
        if config.jaxtyping_disable:
            return function(*args, **kwargs)
        if checks is None:
            # Not when it is defined: an annotation may name what comes further down in the file.
            checks = _checks(function)
        if checks.has_shapes:
            # Sizes of one name are equal within one call.
            with jaxtyped("context"):
                return _call(function, checks, args, kwargs)
        return _call(function, checks, args, kwargs)

    return checked


def _call(function: Any, checks: Checks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    for (name, check), value in zip(checks.positional, args, strict=False):
        if check is not None and not check(value):
            raise _wrong(function, name, value)
    name, check = checks.more_positional
    if check is not None:
        for value in args[len(checks.positional) :]:
            if not check(value):
                raise _wrong(function, name, value)
    for name, value in kwargs.items():
        check = checks.named.get(name, checks.more_named)
        if check is not None and not check(value):
            raise _wrong(function, name, value)
    result = function(*args, **kwargs)
    if checks.returned is not None and not checks.returned(result):
        raise _wrong(function, "return", result)
    return result


def _wrong(function: Any, name: str, value: Any) -> TypeCheckError:
    place = f"{function.__module__}.{function.__qualname__}"
    shape = f" of shape {tuple(value.shape)} and {value.dtype}" if hasattr(value, "dtype") else ""
    stated = ", ".join(f"{name}: {hint}" for name, hint in function.__annotations__.items())
    value_text = f"{type(value).__name__}{shape}, {reprlib.repr(value)}"
    return TypeCheckError(f"{place}: {name} is a {value_text}; stated are {stated}")


def _checks(function: Any) -> Checks:
    """Return the checks of a function, the same for all that one `def` makes."""
    _, checks = _CHECKS_BY_CODE.get(id(function.__code__), (None, None))
    if checks is None or not _are_equal(checks.annotations, function.__annotations__):
        checks = _new_checks(function)
        # The code is kept too, so that no other gets its id.
        _CHECKS_BY_CODE[id(function.__code__)] = (function.__code__, checks)
    return checks


def _are_equal(annotations: dict[str, Any], others: dict[str, Any]) -> bool:
    return annotations.keys() == others.keys() and all(
        _identity(hint) == _identity(others[name]) for name, hint in annotations.items()
    )


def _identity(hint: Any) -> Any:
    """Return what tells an annotation from others; jaxtyping makes a new class for each."""
    return (hint.dtype, hint.array_type, hint.dim_str) if _is_shape(hint) else hint


def _new_checks(function: Any) -> Checks:
    hints = {name: _resolved(name, function) for name in function.__annotations__}
    positional, named, more = [], {}, {}
    for name, parameter in inspect.signature(function).parameters.items():
        check = _check(hints.get(name, Any))
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            more[parameter.kind] = (name, check)
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append((name, check))
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            named[name] = check
    return Checks(
        annotations=dict(function.__annotations__),
        positional=positional,
        named=named,
        more_positional=more.get(inspect.Parameter.VAR_POSITIONAL, ("", None)),
        more_named=more.get(inspect.Parameter.VAR_KEYWORD, ("", None))[1],
        returned=_check(hints.get("return", Any)),
        has_shapes=any(map(_has_shape, hints.values())),
    )


def _resolved(name: str, function: Any) -> Any:
    """Return an annotation of a function; one that only a type checker can resolve is Any."""

    def stub() -> None: ...

    stub.__annotations__ = {name: function.__annotations__[name]}
    try:
        return get_type_hints(stub, function.__globals__, include_extras=True)[name]
    except NameError:
        return Any


def _check(hint: Any) -> Check | None:
    if any(hint is anything for anything in ANYTHING):
        return None
    classes = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if all(map(_is_class, classes)):
        # As beartype would answer, but for shapes: it would compile each one anew.
        return lambda value: isinstance(value, classes)
    return lambda value: is_bearable(value, hint)


def _is_class(hint: Any) -> bool:
    """Whether `isinstance` answers for it."""
    if hint in (Any, NoneType) or get_args(hint) or not inspect.isclass(hint):
        return hint is NoneType
    return not (is_typeddict(hint) or getattr(hint, "_is_protocol", False))


def _is_shape(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def _has_shape(hint: Any) -> bool:
    return _is_shape(hint) or any(map(_has_shape, get_args(hint)))


setattr(jaxtyping, "jaxtyped", type_checked)  # noqa: B010
