"""Options, loading and checks that several commands share."""

import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.analysis.fairness import ALLOWANCES
from attnlab.commands.options import add_config_dir, add_runs, add_runs_dir
from attnlab.environment import default_runs_dir
from attnlab.errors import RecordError, RecordWarning, RequestError
from attnlab.places import require_writable
from attnlab.printable import say_message
from attnlab.run_record.record import find_runs

if TYPE_CHECKING:
    from attnlab.loaded_run import LoadedRun

RUN_HINT = "`attnlab train dataset=pronoun` makes a run to try, --runs-dir looks elsewhere"


def add_selection(
    parser: ArgumentParser, metric_help: str = "default: the main one of the dataset"
) -> None:
    """Declare the options that select runs and compare them; `metric` is the help on the metric."""
    add_runs(parser)
    parser.add_argument(
        "--by", nargs="+", metavar="KEY", help="what makes a group; default: all but the seed"
    )
    parser.add_argument("--metric", help=metric_help)
    parser.add_argument(
        "--baseline", metavar="KEY=VALUE,...", help="or best; default: the first group"
    )
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        choices=ALLOWANCES,
        default=[],
        help="compare although these differ between groups, or within one (mixed)",
    )


def add_run(parser: ArgumentParser, *, required: bool = True) -> None:
    """Declare the run to load; without `required`, the command itself refuses a missing run."""
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs=None if required else "?",
        help="a run's directory, or the start of its name",
    )
    add_runs_dir(parser)
    add_config_dir(parser)


def load_run(
    name: str,
    runs_dir: Path | None = None,
    config_dir: Path | None = None,
    *,
    overrides: Sequence[str] = (),
) -> "LoadedRun":
    """Load a run (`attnlab.loaded_run.load`), and print its warnings on standard error."""
    # torch takes seconds to import, and comparing runs does not need it.
    from attnlab.loaded_run import load

    try:
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always", RecordWarning)
            loaded_run = load(name, runs_dir=runs_dir, config_dir=config_dir, overrides=overrides)
    except RecordError as error:
        directory = Path(runs_dir or default_runs_dir())
        # Where the directory does not exist, the error already says what makes one.
        if not directory.is_dir() or find_runs(directory):
            raise
        raise RequestError(f"{error}; {RUN_HINT}") from error
    for warning in caught_warnings:
        if issubclass(warning.category, RecordWarning):
            say_message(f"warning: {warning.message}")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return loaded_run


def require_writable_file(output: Path, option: str = "--output") -> None:
    """Raise RequestError for a file that cannot be written, before the work for it begins."""
    if output.is_dir():
        raise RequestError(f"{option} {output} is a directory; name a file in it")
    if not output.parent.is_dir():
        raise RequestError(f"{option} {output}: there is no directory {output.parent}; make it")
    require_writable(output.parent, option)


def require_output_file(
    output: Path, endings: Sequence[str], output_format: str = "table", option: str = "--output"
) -> None:
    """Raise RequestError for a file of another kind, beside --format json, or not writable."""
    if output.suffix not in endings:
        listed_endings = ", ".join(endings)
        raise RequestError(f"{option} {output}: the name must end in one of {listed_endings}")
    if output_format == "json":
        raise RequestError(f"{option} writes a file and --format json prints; choose one")
    require_writable_file(output, option)
