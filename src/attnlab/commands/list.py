"""`attnlab list`: the config groups and their choices.

With `--format json`, a group is printed as a list of objects with `name`, `summary` and `knobs`
(name to default); without a group, an object of groups to names is printed.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from attnlab.analysis.report import to_plain
from attnlab.building import summarize_target
from attnlab.choices import choice_files
from attnlab.commands.options import add_config_dir
from attnlab.config import add_import_paths, unreadable_yaml
from attnlab.errors import ConfigError, RequestError
from attnlab.printable import indent_after_name, say
from attnlab.signatures import target_nodes


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
        add_import_paths(arguments.config_dir)
    files_by_group = choice_files(arguments.config_dir)
    group, as_json = arguments.group, arguments.format == "json"
    if group is None:
        names_by_group = {name: sorted(files) for name, files in sorted(files_by_group.items())}
        say(
            json.dumps(to_plain(names_by_group), indent=2)
            if as_json
            else _format_groups(names_by_group)
        )
        return 0
    if group not in files_by_group:
        close_groups = get_close_matches(group, files_by_group, n=1)
        hint = (
            f"did you mean {close_groups[0]}?"
            if close_groups
            else f"there are {', '.join(sorted(files_by_group))}"
        )
        raise RequestError(f"there is no group {group!r}; {hint}")
    choices = [_describe_choice(name, path) for name, path in sorted(files_by_group[group].items())]
    say(json.dumps(to_plain(choices), indent=2) if as_json else _format_choices(choices))
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
    component = next(target_nodes(config), None)
    # A choice that changes another one has no class: its knobs stand under the group's name.
    knobs = config.get(path.parent.name) or config if component is None else component
    summary = next(iter(summaries), "")
    if component is not None and not summaries:
        summary = _summarize(component["_target_"])
    own_knobs = {k: v for k, v in knobs.items() if not k.startswith("_") and k != "defaults"}
    return Choice(name, summary, own_knobs)


def _summarize(target: Any) -> str:
    """Return the first docstring line of a target, or why there is none."""
    try:
        return summarize_target(target)
    except ValueError as error:
        return str(error)


def _format_groups(names_by_group: Mapping[str, Sequence[str]]) -> str:
    """Return a line for each group, with the names of its choices."""
    width = max(map(len, names_by_group))
    return "\n".join(
        indent_after_name(group, " ".join(names), width) for group, names in names_by_group.items()
    )


def _format_choices(choices: Sequence[Choice]) -> str:
    """Return the choices of a group as text, their names as wide as the longest."""
    name_width = max(len(choice.name) for choice in choices)
    return "\n".join(_format_choice(choice, name_width) for choice in choices)


def _format_choice(choice: Choice, name_width: int) -> str:
    """Return a choice as text: its name and summary, then its knobs on a second line."""
    knobs = "  ".join(f"{name}={json.dumps(value)}" for name, value in choice.knobs.items())
    lines = [indent_after_name(choice.name, choice.summary, name_width)]
    lines += [indent_after_name("", knobs, name_width)] if knobs else []
    return "\n".join(lines)
