"""The targets that a config may name in each of its sections, and how they are built.

A config is data, and that of a record may come from somebody else: a target is built only if it is
defined in a module that its section builds from, or if a YAML of the user's own --config-dir names
it.
"""

import ast
import re
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass, isfunction
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, NamedTuple

from attnlab.interruption import delay_interruption

PARTS = {
    "model": ("model", "mixer", "ffn", "position"),
    "init": ("init",),
    "objective": ("objective",),
    "optimizer": ("optimizer",),
    "schedule": ("schedule",),
    "trainer": ("training",),
    "dataset": ("dataset", "tokenizer"),
    "match": ("matching",),
    "metric": ("metric",),
    "callbacks": ("callbacks",),
    "evidence": ("evidence",),
    "logger": ("logger",),
    "launcher": ("launch",),
}
"""The modules and packages of attnlab that each section of a config builds from."""
SECTIONS_WITH_FUNCTIONS = ("metric",)
"""The sections whose targets may be functions; in all others they are classes."""
DIRECTIVES = {"_target_", "_partial_", "_in_identity_"}
"""Keys that state the target, whether it gets further arguments later, and, for a callback, whether
it is part of a run's identity; Hydra's other directives are not supported."""


class UserTargets(NamedTuple):
    """The targets that the user's own configs add to those of attnlab."""

    config_dir: str | None = None
    """The directory as the user wrote it."""
    targets: frozenset[str] = frozenset()
    """The values of `_target_` in its YAMLs, which the user trusts."""


NO_USER_TARGETS = UserTargets()


def is_allowed(name: Any, section: str, user_targets: UserTargets) -> bool:
    """Return whether a target may be imported for a section, by its name alone."""
    if not isinstance(name, str):
        return False
    packages = "|".join(PARTS.get(section, ()))
    is_of_attnlab = packages and re.fullmatch(
        rf"attnlab\.({packages})(\.[a-z]\w*)*\.[A-Za-z]\w*", name
    )
    return bool(is_of_attnlab) or name in user_targets.targets


def summarize_target(name: Any) -> str:
    """Return the first docstring line of a class or function from its source, without importing it.

    The packages around its module are imported. Raises ValueError where there is no such module.
    """
    module, _, definition = str(name).rpartition(".")
    if not module:
        raise ValueError(f"{name!r} is no dotted name of a class")
    try:
        spec = find_spec(module)
    except Exception as error:  # A package of the user's own can fail in any way.
        raise ValueError(f"{name} cannot be found: {first_line(error)}") from error
    if spec is None or spec.origin is None:
        raise ValueError(f"{name} cannot be found: no module named {module!r}")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == definition:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def find_target(name: Any, section: str, user_targets: UserTargets) -> Any:
    """Return the target of a part of a section, imported.

    Raises ValueError, and imports nothing, if the section does not build from it; ValueError also
    if it cannot be imported, or is one of attnlab's that is no component.
    """
    if not isinstance(name, str) or "." not in name:
        raise ValueError(f"expected the dotted name of a class (MODULE.CLASS), got {name!r}")
    if not is_allowed(name, section, user_targets):
        packages = ", ".join(f"attnlab.{package}" for package in PARTS.get(section, ()))
        raise ValueError(
            f"{name} is none of what {section} is built from ({packages}); "
            "name a part of your own in a YAML of your --config-dir"
        )
    try:
        # Libraries catch what is raised while they are imported, and stay half imported.
        with delay_interruption(1):
            target = import_target(name)
    except SystemExit as error:
        raise ValueError(f"cannot import {name}: its module ends the program") from error
    except Exception as error:  # Importing a user's module can fail in any way.
        while error.__cause__ is not None:
            error = error.__cause__
        is_of_user = name in user_targets.targets and not name.startswith("attnlab.")
        place_hint = _place_hint(error, name) if is_of_user else ""
        raise ValueError(f"cannot import {name}: {first_line(error)}{place_hint}") from error
    if name in user_targets.targets:
        return target
    is_component = isclass(target) or (isfunction(target) and section in SECTIONS_WITH_FUNCTIONS)
    if not is_component or f"{target.__module__}.{target.__qualname__}" != name:
        kinds = "a class or function" if section in SECTIONS_WITH_FUNCTIONS else "a class"
        raise ValueError(f"{name} is not {kinds} of that module, which {section} needs")
    return target


def _place_hint(error: BaseException, name: str) -> str:
    """Return where a class of the user's own should lie, if it was not found in its module."""
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return (
            "; modules of your own lie in the --config-dir, beside it, or where the command is "
            f"typed: put `{error.name}` there, or install the package that has it"
        )
    module = getattr(error, "obj", None)
    if isinstance(error, AttributeError) and isinstance(module, ModuleType):
        return f"; that is {getattr(module, '__file__', None) or 'a directory without modules'}"
    return ""


def import_target(name: str) -> Any:
    """Return the object with a dotted name, imported: one of a module, or of a class in it."""
    module, _, attribute = name.rpartition(".")
    try:
        parent = import_module(module)
    except ModuleNotFoundError as error:
        # If the missing module is another one, that import inside of `module` is at fault.
        if "." not in module or not f"{module}.".startswith(f"{error.name}."):
            raise
        parent = import_target(module)
    return getattr(parent, attribute)


def build(node: Mapping[str, Any], section: str, user_targets: UserTargets, *wiring: Any) -> Any:
    """Return the target of a node called with its knobs, whose parts are built first.

    `wiring` are its positional arguments. Unlike `hydra.utils.instantiate`, no text is read as an
    interpolation, and only the keys `_target_` and `_partial_` are special. Raises ValueError where
    `find_target` does, and if a class of the user's own fails.
    """

    def build_value(value: Any) -> Any:
        if isinstance(value, Mapping):
            if "_target_" in value:
                return build(value, section, user_targets)
            return {key: build_value(child) for key, child in value.items()}
        return [build_value(child) for child in value] if isinstance(value, list) else value

    name = node["_target_"]
    target = find_target(name, section, user_targets)
    knobs = {key: build_value(value) for key, value in node.items() if key not in DIRECTIVES}
    if node.get("_partial_"):
        return partial(target, *wiring, **knobs)
    try:
        return target(*wiring, **knobs)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        # Only errors in a class of the user's own become messages; others are our bugs.
        if name not in user_targets.targets:
            raise
        kind = type(error).__name__
        raise ValueError(f"{name} cannot be built: {kind}: {first_line(error)}") from error


def fault_of_own_part(error: BaseException, user_targets: UserTargets) -> str | None:
    """Return what failed and where, if it was a class of the user's own; None for an error of ours.

    It was one if its module is in the traceback, or if it does not take what it was called with.
    """
    names = [name for name in user_targets.targets if not name.startswith("attnlab.")]
    modules = (sys.modules.get(name.rpartition(".")[0]) for name in names)
    files = {getattr(module, "__file__", None) for module in modules}
    places = [
        f" ({frame.filename}, line {frame.lineno})"
        for frame in extract_tb(error.__traceback__)
        if frame.filename in files
    ]
    callee_match = re.match(
        r"(?:Can't instantiate abstract class )?(\w+)(?:\.__init__\(\))? ", str(error)
    )
    is_call_of_own = callee_match and callee_match[1] in {name.rpartition(".")[2] for name in names}
    if not places and not (isinstance(error, TypeError) and is_call_of_own):
        return None
    return f"{type(error).__name__}: {first_line(error)}{places[-1] if places else ''}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n")[0]
