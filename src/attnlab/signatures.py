"""Hold a part of a config against the signature of what it names."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from inspect import Parameter, isclass, signature
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.utils import get_object

RESERVED = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}


def target_faults(node: Any, path: str, trusted: Sequence[str]) -> Iterator[str]:
    """Say what does not fit: in `_target_`, in each key, and in the parts inside."""
    if not isinstance(node, dict) or "_target_" not in node:
        yield f"{path}: expected a choice with a _target_, got {node!r}"
        return
    name = str(node["_target_"])
    if name.split(".")[0] not in trusted:
        yield (
            f"{path}._target_: {name} is in no package that may be built "
            f"({', '.join(trusted)}); name it in a YAML of your own --config-dir"
        )
        return
    try:
        target = get_object(name)
    except Exception as error:  # Importing somebody's module can fail in any way.
        yield f"{path}._target_: cannot import {name}: {first_line(error)}"
        return
    parameters = signature(target).parameters
    hints = get_type_hints(target.__init__ if isclass(target) else target)
    knobs = {n for n, p in parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
    loose = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for key in [key for key in node if key not in RESERVED]:
        where = f"{path}.{key}"
        if key in parameters and key not in knobs:
            yield f"{where}: `{key}` is set by the code, not by the config"
        elif key not in parameters:
            if not loose:
                yield f"{where}: {name} takes no `{key}`{nearest(key, knobs)}"
        elif isinstance(node[key], dict) and "_target_" in node[key]:
            yield from target_faults(node[key], where, trusted)
        else:
            yield from value_faults(node, key, hints.get(key, Any), where)
    for key in sorted(knobs - node.keys()):
        yield f"{path}.{key}: missing; {name} has this knob, so state it"


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Find every part of a config that names what it builds, the outer ones first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from targets(child)


def add_defaults(node: dict[str, Any], trusted: Sequence[str]) -> None:
    """Add the knobs that a part of a config does not state, as its class has them."""
    name = str(node["_target_"])
    if name.split(".")[0] in trusted:
        for knob, parameter in signature(get_object(name)).parameters.items():
            stated = knob in node or parameter.kind is not Parameter.KEYWORD_ONLY
            if not stated and parameter.default is not Parameter.empty:
                node[knob] = parameter.default


def value_faults(node: dict[str, Any], key: str, hint: Any, path: str) -> Iterator[str]:
    """Check one value, and write a whole number as the float that its knob asks for."""
    value = node[key]
    kinds = set(_members(hint))
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds - {int}:
        node[key] = value = float(value)
    boolean = isinstance(value, bool) and not kinds & {bool, Any, object}
    if boolean or not is_bearable(value, hint, conf=BeartypeConf()):
        yield f"{path}: expected {_name(hint)}, got {value!r}"


def nearest(given: str, names: Any) -> str:
    """Say which of the names was probably meant, or which there are."""
    names = sorted(names)
    near = get_close_matches(given, names, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; there is {', '.join(names)}" if names else "; there is none"


def _members(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _name(hint: Any) -> str:
    names = {type(None): "null"}
    return " or ".join(
        names.get(h) or (h.__name__ if isclass(h) and not get_args(h) else str(h))
        for h in _members(hint)
    )


def first_line(error: BaseException) -> str:
    """Give what an error says first."""
    return str(error).strip().split("\n")[0]
