"""`attnlab list`: what can be chosen.

With `--format json`, a group gives a list of objects with `name`, `summary` and `knobs` (name to
default); without a group, an object of group to names.
"""

import ast
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from attnlab.analysis.report import plain
from attnlab.commands.options import add_config_dir
from attnlab.config import conf_dir
from attnlab.errors import RequestError
from attnlab.printable import say


@dataclass(frozen=True)
class Choice:
    """A file of a group: what it is, and its knobs at their defaults."""

    name: str
    summary: str
    knobs: Mapping[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab list`."""
    parser.add_argument("group", nargs="?", help="such as variant, dataset, model/mixer")
    add_config_dir(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the groups, or the choices of one."""
    choices = _choices(arguments.config_dir)
    if arguments.group is None:
        shown: Any = {group: sorted(names) for group, names in sorted(choices.items())}
        wide = max(map(len, shown))
        text = "\n".join(f"{group:<{wide}} {' '.join(names)}" for group, names in shown.items())
    elif arguments.group not in choices:
        near = get_close_matches(arguments.group, choices, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(choices))}"
        raise RequestError(f"there is no group {arguments.group!r}; {hint}")
    else:
        shown = [_describe(n, path) for n, path in sorted(choices[arguments.group].items())]
        wide = max(len(choice.name) for choice in shown)
        text = "\n".join(_paragraph(choice, wide) for choice in shown)
    say(json.dumps(plain(shown), indent=2) if arguments.format == "json" else text)
    return 0


def _choices(config_dir: Path | None) -> dict[str, dict[str, Path]]:
    """Map each group to its files; the user's come before ours of the same name."""
    directories = [conf_dir()]
    if config_dir is not None:
        if not config_dir.is_dir():
            raise RequestError(f"--config-dir {config_dir} is not a directory")
        directories.append(config_dir)
    found: dict[str, dict[str, Path]] = {}
    for directory in directories:
        for path in directory.rglob("*.yaml"):
            group = path.parent.relative_to(directory).as_posix()
            if group != ".":
                found.setdefault(group, {})[path.stem] = path
    return found


def _describe(name: str, path: Path) -> Choice:
    text = path.read_text()
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    sentences = [line for line in comments if not line.startswith("@package")]
    content = yaml.safe_load(text) or {}
    nodes = list(_targets(content))
    # A choice that changes another one states its group alone.
    knobs = nodes[0] if nodes else content.get(path.parent.name) or content
    summary = sentences[0] if sentences else _docstring(nodes[0]["_target_"]) if nodes else ""
    stated = {k: v for k, v in knobs.items() if not k.startswith("_") and k != "defaults"}
    return Choice(name, summary, stated)


def _targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        else:
            for child in node.values():
                yield from _targets(child)


def _docstring(target: str) -> str:
    """Read a class's first line from its source: importing it would load torch."""
    module, name = target.rsplit(".", 1)
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def _paragraph(choice: Choice, wide: int) -> str:
    knobs = "  ".join(f"{name}={json.dumps(value)}" for name, value in choice.knobs.items())
    second_line = f"\n{'':<{wide}} {knobs}" if knobs else ""
    return f"{choice.name:<{wide}} {choice.summary}{second_line}"
