"""`attnlab list`: the config groups and their choices.

With `--format json`, a group is printed as a list of objects with `name`, `summary` and `knobs`
(name to default); without a group, an object of groups to names is printed.
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

from attnlab.analysis.report import to_plain
from attnlab.building import first_line
from attnlab.choices import choice_files
from attnlab.commands.options import add_config_dir
from attnlab.config import own_parts, unreadable_yaml
from attnlab.errors import ConfigError, RequestError
from attnlab.printable import say


@dataclass(frozen=True)
class Choice:
    """A file of a config group: its summary, and its knobs at their defaults."""

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
    if arguments.config_dir is not None:
        # So that the classes that its YAMLs name can be described.
        own_parts(arguments.config_dir)
    choices = choice_files(arguments.config_dir)
    if arguments.group is None:
        answer: Any = {group: sorted(names) for group, names in sorted(choices.items())}
        name_width = max(map(len, answer))
        text = "\n".join(
            f"{group:<{name_width}} {' '.join(names)}" for group, names in answer.items()
        )
    elif arguments.group not in choices:
        close_groups = get_close_matches(arguments.group, choices, n=1)
        hint = (
            f"did you mean {close_groups[0]}?"
            if close_groups
            else f"there are {', '.join(sorted(choices))}"
        )
        raise RequestError(f"there is no group {arguments.group!r}; {hint}")
    else:
        answer = [_describe_choice(n, path) for n, path in sorted(choices[arguments.group].items())]
        name_width = max(len(choice.name) for choice in answer)
        text = "\n".join(_format_choice(choice, name_width) for choice in answer)
    say(json.dumps(to_plain(answer), indent=2) if arguments.format == "json" else text)
    return 0


def _describe_choice(name: str, path: Path) -> Choice:
    """Read a choice from its YAML: the first comment, else its class's docstring, and the knobs.

    Raises ConfigError for a YAML of the user's that cannot be read.
    """
    if faults := list(unreadable_yaml([path])):
        raise ConfigError(faults)
    yaml_text = path.read_text(encoding="utf-8")
    comments = [line[1:].strip() for line in yaml_text.splitlines() if line.startswith("#")]
    summaries = [line for line in comments if not line.startswith("@package")]
    config = yaml.safe_load(yaml_text) or {}
    if not isinstance(config, dict):
        raise ConfigError([f"{path}: expected keys, got {config!r}"])
    nodes = list(_find_targets(config))
    # A choice that changes another one has no class: its knobs stand under the group's name.
    knobs = nodes[0] if nodes else config.get(path.parent.name) or config
    summary = (
        summaries[0] if summaries else _first_docstring_line(nodes[0]["_target_"]) if nodes else ""
    )
    own_knobs = {k: v for k, v in knobs.items() if not k.startswith("_") and k != "defaults"}
    return Choice(name, summary, own_knobs)


def _find_targets(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the outermost nodes of a config that have a `_target_`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        else:
            for child in node.values():
                yield from _find_targets(child)


def _first_docstring_line(target: Any) -> str:
    """Return the first docstring line of a class from its source; importing it would load torch."""
    module, _, name = str(target).rpartition(".")
    if not module:
        return f"{target!r} is no dotted name of a class"
    try:
        spec = find_spec(module)
    except Exception as error:  # A package of the user's own can fail in any way.
        return f"{target} cannot be found: {first_line(error)}"
    if spec is None or spec.origin is None:
        return f"{target} cannot be found: no module named {module!r}"
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def _format_choice(choice: Choice, name_width: int) -> str:
    """Return a choice as text: its name and summary, then its knobs on a second line."""
    knobs = "  ".join(f"{name}={json.dumps(value)}" for name, value in choice.knobs.items())
    second_line = f"\n{'':<{name_width}} {knobs}" if knobs else ""
    return f"{choice.name:<{name_width}} {choice.summary}{second_line}"
