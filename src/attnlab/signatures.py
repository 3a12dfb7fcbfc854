"""Checks the parts of a config against the signatures of the classes that they name."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from inspect import Parameter, isclass, signature
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable

from attnlab.building import DIRECTIVES, NO_USER_TARGETS, UserTargets, find_target
from attnlab.ranges import finiteness_faults, is_finite, range_faults, without_ranges

STATABLE = (int, float, str, bool, type(None))
"""The types of single values in a YAML."""
NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def target_faults(
    node: Any, path: str, user_targets: UserTargets = NO_USER_TARGETS
) -> Iterator[str]:
    """Yield each fault of a config's part: of its `_target_`, its keys, and the parts inside of it.

    The first word of `path` is the section of the config.
    """
    if not _is_node(node):
        yield f"{path}: expected a choice with a _target_, got {node!r}"
        return
    name, section = node["_target_"], re.split(r"[.\[]", path)[0]
    try:
        target = find_target(name, section, user_targets)
    except ValueError as error:
        yield f"{path}._target_: {error}"
        return
    yield from _directive_faults(node, path, section)
    try:
        parameters = signature(target).parameters.values()
    except (TypeError, ValueError):
        yield f"{path}._target_: {name} does not say which knobs it has; write a class of your own"
        return
    knobs = _find_knobs(target, section)
    takes_any_knob = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    wiring = {p.name for p in parameters if p.kind in NAMED} - knobs.names
    for key in [key for key in node if key not in DIRECTIVES]:
        key_path = f"{path}.{key}"
        if re.fullmatch(r"_\w*_", key):
            directives = ", ".join(sorted(DIRECTIVES))
            yield f"{key_path}: attnlab has no such directive; there are {directives}"
        elif key in wiring:
            yield f"{key_path}: `{key}` is set by the code, not by the config"
        elif key not in knobs.names and not takes_any_knob:
            yield f"{key_path}: {name} takes no `{key}`{nearest_hint(key, knobs.names)}"
        elif any(target_nodes(node[key])):
            yield from _part_faults(node[key], knobs.types.get(key, Any), key_path, user_targets)
        else:
            yield from value_faults(node[key], knobs.types.get(key, Any), key_path)
    for key in sorted(knobs.required - node.keys()):
        yield f"{path}.{key}: missing; {name} has this knob, so state it"


def _directive_faults(node: dict[str, Any], path: str, section: str) -> Iterator[str]:
    """Yield the faults of the directives beside a `_target_`."""
    if not isinstance(node.get("_partial_", False), bool):
        yield f"{path}._partial_: expected true or false, got {node['_partial_']!r}"
    if "_in_identity_" in node and section != "callbacks":
        yield f"{path}._in_identity_: this is for callbacks alone"
    elif not isinstance(node.get("_in_identity_", True), bool):
        yield f"{path}._in_identity_: expected true or false, got {node['_in_identity_']!r}"


def _part_faults(value: Any, hint: Any, path: str, user_targets: UserTargets) -> Iterator[str]:
    """Yield the faults of a knob that is a part, or a mapping or list of parts."""
    parts = {path: value}
    if not _is_node(value):
        hint = (get_args(hint) or (Any,))[-1]
        if isinstance(value, dict):
            parts = {f"{path}.{name}": part for name, part in value.items() if part is not None}
        else:
            parts = {f"{path}[{index}]": part for index, part in enumerate(value)}
    for part_path, part in parts.items():
        yield from target_faults(part, part_path, user_targets)
        if hint is not Any:
            is_called_later = any(get_origin(m) is Callable for m in _union_members(hint))
            yield from partial_faults(part, part_path, is_called_later)


def partial_faults(node: Any, path: str, is_called_later: bool) -> Iterator[str]:
    """Yield a fault for a part that lacks `_partial_: true` and needs it, or has it in vain.

    A part that gets wiring from the code is called later.
    """
    is_partial = node.get("_partial_", False) if _is_node(node) else None
    if is_called_later and is_partial is False:
        yield f"{path}: expected `_partial_: true` beside its _target_"
    elif is_partial is True and not is_called_later:
        yield f"{path}._partial_: attnlab builds it from its knobs alone; leave _partial_ out"


class _Knobs(NamedTuple):
    """The knobs of a target."""

    names: set[str]
    required: set[str]
    types: dict[str, Any]
    """Without those that are not checked."""


def _find_knobs(target: Any, section: str) -> _Knobs:
    """Return the knobs of a target, those that are required, and their types.

    A class from outside of attnlab does not separate wiring from knobs: all its parameters are
    knobs, except those that `Adapter` supplies in a model, the first one and `layer_idx`; those
    with a default are optional. Only types of callbacks are checked: the annotations of a module of
    another package were written for nobody's check, and some are wrong.
    """
    parameters = signature(target).parameters
    if not (isclass(target) and _is_foreign(target)):
        knobs = {
            name
            for name, parameter in parameters.items()
            if parameter.kind is Parameter.KEYWORD_ONLY
        }
        annotated = target.__init__ if isclass(target) else target
        return _Knobs(knobs, knobs, get_type_hints(annotated, include_extras=True))
    keyword_names = [name for name, parameter in parameters.items() if parameter.kind in NAMED]
    knobs = {*keyword_names[1:]} - {"layer_idx"} if section == "model" else {*keyword_names}
    required = {name for name in knobs if parameters[name].default is Parameter.empty}
    return _Knobs(knobs, required, _statable_types(target) if section == "callbacks" else {})


def _statable_types(kind: type) -> dict[str, Any]:
    """Return the types of a class from elsewhere that a YAML can state: numbers, text, booleans.

    Others, such as a tuple or a path, have no form of their own in a YAML. The type of the default
    is added, as in `rate: float = None`.
    """
    try:
        hints = get_type_hints(kind.__init__, include_extras=True)
    except Exception:  # Types can name what was imported for a type checker alone.
        return {}
    parameters = signature(kind).parameters
    types = {}
    for name in hints.keys() & parameters.keys():
        hint, default = hints[name], parameters[name].default
        members = set(_union_members(without_ranges(hint)))
        if all(m in STATABLE or get_origin(m) is Literal for m in members):
            types[name] = hint if default is Parameter.empty else hint | type(default)
    return types


def _is_foreign(kind: type) -> bool:
    return all(base.__module__.split(".")[0] != "attnlab" for base in kind.__mro__)


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def target_nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a config that has a `_target_`, the outer ones first."""
    for _, part in target_nodes_with_keys(node, ""):
        yield part


def target_nodes_with_keys(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each of `target_nodes` with its dotted key, below the `key` of the node itself."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, child in node.items():
            yield from target_nodes_with_keys(child, f"{key}.{name}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from target_nodes_with_keys(child, f"{key}[{index}]")


def add_defaults(node: dict[str, Any], section: str, user_targets: UserTargets) -> None:
    """Add the knobs that a part of a config does not state, with the defaults of its class.

    A part whose target must not be built is left as it is.
    """
    with suppress(ValueError):
        target = find_target(node["_target_"], section, user_targets)
        for knob, parameter in signature(target).parameters.items():
            is_set = knob in node or parameter.kind is not Parameter.KEYWORD_ONLY
            if not is_set and parameter.default is not Parameter.empty:
                node[knob] = parameter.default


def value_faults(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Yield the faults of a value; a whole number may stand for a float.

    Every number of a config must be finite, whatever the type of its knob.
    """
    value, value_type = as_float_if_asked(value, hint), without_ranges(hint)
    member_types = set(_union_members(value_type))
    is_wrong_boolean = isinstance(value, bool) and not member_types & {bool, Any, object}
    non_finite_faults = [*finiteness_faults(value, path)]
    if non_finite_faults:
        yield from non_finite_faults
    elif is_wrong_boolean or not is_bearable(value, value_type, conf=BeartypeConf()):
        yield f"{path}: expected {_type_name(value_type)}, got {value!r}"
    else:
        yield from range_faults(value, hint, path)


def as_float_if_asked(value: Any, hint: Any) -> Any:
    """Return a whole number as a float if its knob is one; other values as they are."""
    member_types = {*_union_members(without_ranges(hint))} - {int}
    is_whole_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole_number and float in member_types and is_finite(value) else value


def convert_whole_numbers(node: Any, section: str, user_targets: UserTargets) -> None:
    """Make floats, in place, of the whole numbers of a part and those in it whose knobs are floats.

    The config has been checked. A class from outside of attnlab gets what its YAML states.
    """
    for part in target_nodes(node):
        target = find_target(part["_target_"], section, user_targets)
        if isclass(target) and _is_foreign(target):
            continue
        for knob, hint in _find_knobs(target, section).types.items():
            if knob in part:
                part[knob] = as_float_if_asked(part[knob], hint)


def nearest_hint(name: str, known_names: Any) -> str:
    """Return, for a message, the known name that was probably meant, or all known names."""
    known_names = sorted(known_names)
    close_names = get_close_matches(name, known_names, n=1)
    if close_names:
        return f"; did you mean `{close_names[0]}`?"
    return f"; there is {', '.join(known_names)}" if known_names else "; there is none"


def _union_members(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _union_members(member)
    else:
        yield hint


def _type_name(hint: Any) -> str:
    return " or ".join(map(_member_name, _union_members(hint)))


def _member_name(hint: Any) -> str:
    """Return how a message calls a type that is no union."""
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is Callable and get_args(hint):
        return f"a choice that makes a {_type_name(get_args(hint)[1])}"
    return hint.__name__ if isclass(hint) and not get_args(hint) else str(hint)
