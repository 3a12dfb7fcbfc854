"""What a config may name in each of its sections, and how that is built.

A config is data, and a record's config is somebody else's: a target is built only where it is
defined in a module that its section builds from, or where a YAML of the user's own --config-dir
names it.
"""

import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from inspect import isclass, isfunction
from typing import Any, NamedTuple

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
}
"""The modules and packages of attnlab that each section of a config builds from."""
OF_FUNCTIONS = ("metric",)
"""The sections whose targets may be functions; those of all others are classes."""
DIRECTIVES = {"_target_", "_partial_", "_in_identity_"}
"""Keys that say what is built, whether it gets further arguments later, and, of a callback, whether
it changes a run; Hydra's others are not ours."""


class Own(NamedTuple):
    """What the user's own configs may add to attnlab's targets."""

    config_dir: str | None = None
    """The directory as it was given."""
    targets: frozenset[str] = frozenset()
    """What stands behind `_target_` in its YAMLs; who wrote them trusts what they name."""


NOTHING = Own()


def is_allowed(name: Any, section: str, own: Own) -> bool:
    """Whether a target may be imported for a section, by its name alone."""
    if not isinstance(name, str):
        return False
    rooms = "|".join(PARTS.get(section, ()))
    ours = rooms and re.fullmatch(rf"attnlab\.({rooms})(\.[a-z]\w*)*\.[A-Za-z]\w*", name)
    return bool(ours) or name in own.targets


def find(name: Any, section: str, own: Own) -> Any:
    """Import the target of a part of a section.

    Raises ValueError, and imports nothing, for one that the section does not build from; ValueError
    for one that cannot be imported, and for one of attnlab that is no component.
    """
    if not isinstance(name, str):
        raise ValueError(f"expected the dotted name of a class, got {name!r}")
    if not is_allowed(name, section, own):
        packages = ", ".join(f"attnlab.{room}" for room in PARTS.get(section, ()))
        raise ValueError(
            f"{name} is none of what {section} is built from ({packages}); "
            "name a part of your own in a YAML of your --config-dir"
        )
    try:
        target = imported(name)
    except SystemExit as error:
        raise ValueError(f"cannot import {name}: its module ends the program") from error
    except Exception as error:  # Importing somebody's module can fail in any way.
        while error.__cause__ is not None:
            error = error.__cause__
        raise ValueError(f"cannot import {name}: {first_line(error)}") from error
    if name in own.targets:
        return target
    fits = isclass(target) or (isfunction(target) and section in OF_FUNCTIONS)
    if not fits or f"{target.__module__}.{target.__qualname__}" != name:
        kinds = "a class or function" if section in OF_FUNCTIONS else "a class"
        raise ValueError(f"{name} is not {kinds} of that module, which {section} needs")
    return target


def imported(name: str) -> Any:
    """Import what a dotted name names: something in a module, or inside of a class there."""
    module, _, attribute = name.rpartition(".")
    try:
        parent = import_module(module)
    except ModuleNotFoundError as error:
        # Another module that is missing is the one at fault.
        if "." not in module or not f"{module}.".startswith(f"{error.name}."):
            raise
        parent = imported(module)
    return getattr(parent, attribute)


def build(node: Mapping[str, Any], section: str, own: Own, *wiring: Any) -> Any:
    """Call what a node names with its knobs, whose parts are built first.

    `wiring` are its positional arguments. Unlike `hydra.utils.instantiate`, no text is taken for an
    interpolation, and no key but `_target_` and `_partial_` means anything. Raises ValueError for
    what `find` refuses, and for a class of the user's own that fails.
    """

    def built(value: Any) -> Any:
        if isinstance(value, Mapping):
            if "_target_" in value:
                return build(value, section, own)
            return {key: built(child) for key, child in value.items()}
        return [built(child) for child in value] if isinstance(value, list) else value

    name = node["_target_"]
    target = find(name, section, own)
    knobs = {key: built(value) for key, value in node.items() if key not in DIRECTIVES}
    if node.get("_partial_"):
        return partial(target, *wiring, **knobs)
    try:
        return target(*wiring, **knobs)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        # What a class of the user's own raises is theirs to mend.
        if name not in own.targets:
            raise
        kind = type(error).__name__
        raise ValueError(f"{name} cannot be built: {kind}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return what an error says first."""
    return str(error).strip().split("\n")[0]
