"""What several commands share: which runs they are about."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.errors import RequestError
from attnlab.runs.compare import Panel, compare
from attnlab.runs.fair import ALLOWANCES
from attnlab.runs.select import Selection, select

if TYPE_CHECKING:
    from attnlab.trained import Trained


def add_selection(parser: ArgumentParser) -> None:
    """Declare which runs are compared, and how."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="directories, prefixes or patterns of names"
    )
    _add_runs_dir(parser)
    parser.add_argument(
        "--by", nargs="+", metavar="KEY", help="what makes a group; default: all but the seed"
    )
    parser.add_argument("--metric", help="default: the main one of the dataset")
    parser.add_argument("--baseline", metavar="KEY=VALUE,...", help="default: the first group")
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        choices=ALLOWANCES,
        default=[],
        help="compare although these differ between groups, or within one (mixed)",
    )


def compared(arguments: Namespace) -> tuple[Selection, list[Panel]]:
    """Compare the runs that were asked for."""
    selection = select(arguments.runs, arguments.runs_dir)
    panels = compare(
        selection.results,
        by=arguments.by,
        metric=arguments.metric,
        baseline=arguments.baseline,
        allow=arguments.allow,
    )
    return selection, panels


def add_run(parser: ArgumentParser) -> None:
    """Declare one run that is loaded."""
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the start of its name")
    _add_runs_dir(parser)
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="where the parts of your own stand"
    )


def trained(arguments: Namespace, overrides: Sequence[str] = ()) -> "Trained":
    """Load the run that was asked for."""
    # torch takes seconds to import, which comparing runs does not need.
    from attnlab.trained import load

    return load(
        arguments.run,
        runs_dir=arguments.runs_dir,
        config_dir=arguments.config_dir,
        overrides=overrides,
    )


def require_file(output: Path, option: str = "--output") -> None:
    """Refuse a file that could not be written, before the work for it begins."""
    if output.is_dir():
        raise RequestError(f"{option} {output} is a directory; name a file in it")
    if not output.parent.is_dir():
        raise RequestError(f"{option} {output}: there is no directory {output.parent}; make it")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{option} {output}: {output.parent} cannot be written; name another")


def _add_runs_dir(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="default: $ATTNLAB_RUNS, else runs"
    )
