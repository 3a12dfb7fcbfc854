"""Answer a shell that asks which words fit; nothing heavy is imported for that.

Options are read from the source of a command, keys and choices from the YAMLs, runs from the disk.
"""

import ast
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnlab.choices import FilesByGroup, choice_files, overridable_keys
from attnlab.environment import default_runs_dir, expand_home, read_variable
from attnlab.errors import RequestError

SHARED = ("base", "options")
"""The modules whose functions declare options for several commands."""
KEYWORDS = ("action", "choices", "help", "metavar", "nargs", "const")
"""What of an argument matters for completing it."""


def complete(summaries: Mapping[str, str]) -> int:
    """Answer the shell; `summaries` are the commands."""
    import argcomplete

    typed_words = (read_variable("COMP_LINE") or "").split()
    command = typed_words[1] if len(typed_words) > 1 else ""
    parser = parser_for_completion(command, summaries)
    argcomplete.autocomplete(parser, always_complete_options=False)
    return 1  # Not reached: it ends the process once it has answered.


def parser_for_completion(command: str, summaries: Mapping[str, str]) -> ArgumentParser:
    """Return a parser that knows one command, and only the names of the others."""
    parser = ArgumentParser("attnlab", allow_abbrev=False)
    parser.add_argument("-V", "--version", action="store_true")
    commands = parser.add_subparsers()
    for name, summary in summaries.items():
        command_parser = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name == command:
            for argument_names, settings in declared_arguments(name):
                _add_completer(command_parser.add_argument(*argument_names, **settings))
            command_parser.add_argument("--traceback", action="store_true")
    help_parser = commands.add_parser("help", help="explain a command")
    help_parser.add_argument("command", nargs="?", choices=list(summaries))
    return parser


def declared_arguments(command: str) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yield what a command gives to `add_argument`, as far as it stands in the source literally.

    The source is read and not run: most commands import torch, which takes seconds.
    """
    functions: dict[str, ast.FunctionDef] = {}
    constants: dict[str, Any] = {"SUPPRESS": SUPPRESS}
    for module in (*SHARED, command):
        for node in ast.parse((Path(__file__).parent / f"{module}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                with suppress(ValueError):
                    constants[node.targets[0].id] = ast.literal_eval(node.value)
    yield from _arguments_declared_in(functions["add_arguments"], functions, constants)


def _arguments_declared_in(
    function: ast.FunctionDef,
    functions: Mapping[str, ast.FunctionDef],
    constants: Mapping[str, Any],
) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yield names and settings of each argument that a function, or one that it calls, declares."""
    assignments = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
    # `add = parser.add_argument`.
    alias_assignments = [a for a in assignments if getattr(a.value, "attr", "") == "add_argument"]
    aliases = [ast.unparse(assignment.targets[0]) for assignment in alias_assignments]
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        callee = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if callee in functions:
            yield from _arguments_declared_in(functions[callee], functions, constants)
        elif callee in ("add_argument", *aliases):
            argument_names = _argument_names(call.args)
            settings = {k.arg: _literal(k.value, constants) for k in call.keywords}
            if argument_names and settings.get("help") != SUPPRESS:
                yield argument_names, {key: settings[key] for key in KEYWORDS if settings.get(key)}


def _argument_names(nodes: Sequence[ast.expr]) -> list[str]:
    """Return the names of an argument; none where they are computed."""
    literals = [_literal(n.value if isinstance(n, ast.Starred) else n, {}) for n in nodes]
    return [name for v in literals for name in ([v] if isinstance(v, str) else v or ())]


def _literal(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """Return a value that stands in the source; None for one that must be computed."""
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _add_completer(action: Action) -> None:
    """Give an argument what completes its values, where they are no files."""
    completers: dict[str, Callable[..., Iterable[str]]] = {
        "KEY=VALUE": complete_overrides,
        "RUN": complete_run_names,
        "NAME": lambda parsed_args, **_: _choice_files(parsed_args).get("dataset", ()),
        "group": lambda parsed_args, **_: _choice_files(parsed_args),
    }
    label = action.metavar if isinstance(action.metavar, str) else action.dest
    if label in completers and not action.option_strings:
        action.completer = completers[label]  # pyright: ignore[reportAttributeAccessIssue]


def complete_overrides(prefix: str, parsed_args: Any, **_: Any) -> list[str]:
    """Return the overrides that begin so: groups and keys, and behind a `=` choices."""
    files = _choice_files(parsed_args)
    overrides = [o for o in getattr(parsed_args, "overrides", None) or [] if o != prefix]
    bare = prefix.lstrip("+~")
    sign, (key, equals, value) = prefix[: len(prefix) - len(bare)], bare.partition("=")
    groups, knobs = overridable_keys(overrides, files)
    if equals:
        # Behind a comma stands one more value of a sweep.
        earlier_values = value[: value.rfind(",") + 1]
        choices = ("false", "true") if isinstance(knobs.get(key), bool) else groups.get(key, ())
        return [f"{sign}{key}={earlier_values}{choice}" for choice in choices]
    # A hundred keys, and groups at one place (`model/mixer@model.mixer.a`), would hide the others.
    names = [name for name in (*groups, *knobs) if bare or "." not in name]
    names = [name for name in names if "@" in bare or "@" not in name]
    return [f"{sign}{name}=" for name in sorted({*names}) if name.startswith(bare)]


def complete_run_names(parsed_args: Any, **_: Any) -> list[str]:
    """Return the names of the runs in the directory of runs."""
    try:
        runs_dir = expand_home(getattr(parsed_args, "runs_dir", None) or default_runs_dir())
        names = [path.name for path in runs_dir.iterdir() if (path / "config.yaml").exists()]
    except (OSError, RequestError):
        return []
    # A name may be somebody else's, with what a terminal would obey.
    return sorted(name for name in names if name.isprintable() and not name.startswith("."))


def _choice_files(parsed_args: Any) -> FilesByGroup:
    with suppress(RequestError):
        config_dir = getattr(parsed_args, "config_dir", None)
        return choice_files(expand_home(config_dir) if config_dir else None)
    return choice_files()
