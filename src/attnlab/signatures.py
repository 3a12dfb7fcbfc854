"""Hold a part of a config against the signature of what it names."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from inspect import Parameter, isclass, signature
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable

from attnlab.building import DIRECTIVES, NOTHING, Own, find
from attnlab.ranges import finiteness_faults, is_finite, range_faults, without_range

NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def target_faults(node: Any, path: str, own: Own = NOTHING) -> Iterator[str]:
    """Say what does not fit: in `_target_`, in each key, and in the parts inside.

    The first word of `path` is the section of the config.
    """
    if not _is_node(node):
        yield f"{path}: expected a choice with a _target_, got {node!r}"
        return
    name = node["_target_"]
    try:
        target = find(name, re.split(r"[.\[]", path)[0], own)
    except ValueError as error:
        yield f"{path}._target_: {error}"
        return
    if not isinstance(node.get("_partial_", False), bool):
        yield f"{path}._partial_: expected true or false, got {node['_partial_']!r}"
    section = re.split(r"[.\[]", path)[0]
    if "_in_identity_" in node and section != "callbacks":
        yield f"{path}._in_identity_: this is for callbacks alone"
    elif not isinstance(node.get("_in_identity_", True), bool):
        yield f"{path}._in_identity_: expected true or false, got {node['_in_identity_']!r}"
    try:
        parameters = signature(target).parameters.values()
    except (TypeError, ValueError):
        yield f"{path}._target_: {name} does not say which knobs it has; write a class of your own"
        return
    knobs, needed, hints = _knobs(target, section)
    loose = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    wiring = {p.name for p in parameters if p.kind in NAMED} - knobs
    for key in [key for key in node if key not in DIRECTIVES]:
        where = f"{path}.{key}"
        if re.fullmatch(r"_\w*_", key):
            there = ", ".join(sorted(DIRECTIVES))
            yield f"{where}: attnlab has no such directive; there are {there}"
        elif key in wiring:
            yield f"{where}: `{key}` is set by the code, not by the config"
        elif key not in knobs and not loose:
            yield f"{where}: {name} takes no `{key}`{nearest(key, knobs)}"
        elif any(targets(node[key])):
            yield from _part_faults(node[key], where, own)
        else:
            yield from value_faults(node, key, hints.get(key, Any), where)
    for key in sorted(needed - node.keys()):
        yield f"{path}.{key}: missing; {name} has this knob, so state it"


def _part_faults(value: Any, where: str, own: Own) -> Iterator[str]:
    """Check a knob that is a part, or a mapping or list of parts; no part lies deeper."""
    if _is_node(value):
        yield from target_faults(value, where, own)
    elif isinstance(value, dict):
        for name, part in value.items():
            if part is not None:
                yield from target_faults(part, f"{where}.{name}", own)
    else:
        for place, part in enumerate(value):
            yield from target_faults(part, f"{where}[{place}]", own)


def _knobs(target: Any, section: str) -> tuple[set[str], set[str], dict[str, Any]]:
    """Give what a config may state of a target, what it must, and of which types.

    A foreign class does not part wiring from knobs: all is a knob but what `Adapter` supplies to a
    part of a model, its first parameter and `layer_idx`; one with a default may be left out, and
    types are its own.
    """
    parameters = signature(target).parameters
    if not (isclass(target) and _is_foreign(target)):
        knobs = {n for n, p in parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
        described = target.__init__ if isclass(target) else target
        return knobs, knobs, get_type_hints(described, include_extras=True)
    named = [n for n, p in parameters.items() if p.kind in NAMED]
    knobs = {*named[1:]} - {"layer_idx"} if section == "model" else {*named}
    return knobs, {n for n in knobs if parameters[n].default is Parameter.empty}, {}


def _is_foreign(kind: type) -> bool:
    return all(base.__module__.split(".")[0] != "attnlab" for base in kind.__mro__)


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Find every part of a config that names what it builds, the outer ones first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from targets(child)


def add_defaults(node: dict[str, Any], section: str, own: Own) -> None:
    """Add the knobs that a part of a config does not state, as its class has them.

    A target that may not be built is left as it is.
    """
    with suppress(ValueError):
        target = find(node["_target_"], section, own)
        for knob, parameter in signature(target).parameters.items():
            stated = knob in node or parameter.kind is not Parameter.KEYWORD_ONLY
            if not stated and parameter.default is not Parameter.empty:
                node[knob] = parameter.default


def value_faults(node: dict[str, Any], key: str, hint: Any, path: str) -> Iterator[str]:
    """Check one value, and write a whole number as the float that its knob asks for.

    This is where each number of a config must be finite, whatever its knob is of.
    """
    value, kind = node[key], without_range(hint)
    kinds = set(_members(kind))
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and float in kinds - {int} and is_finite(value):
        node[key] = value = float(value)
    boolean = isinstance(value, bool) and not kinds & {bool, Any, object}
    if faults := [*finiteness_faults(value, path)]:
        yield from faults
    elif boolean or not is_bearable(value, kind, conf=BeartypeConf()):
        yield f"{path}: expected {_name(kind)}, got {value!r}"
    else:
        yield from range_faults(value, hint, path)


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
    return " or ".join(map(_one_name, _members(hint)))


def _one_name(hint: Any) -> str:
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is Callable and get_args(hint):
        return f"a choice that makes a {_name(get_args(hint)[1])}"
    return hint.__name__ if isclass(hint) and not get_args(hint) else str(hint)
