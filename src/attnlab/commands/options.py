"""Options that many commands share; this module imports nothing that is slow to load."""

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

from attnlab.environment import given_path
from attnlab.errors import RequestError


def path_option(text: str) -> Path:
    """Parse a path for argparse. Raises ArgumentTypeError for an invalid one."""
    try:
        return given_path(text)
    except RequestError as error:
        raise ArgumentTypeError(str(error)) from error


def add_config_dir(parser: ArgumentParser) -> None:
    """Declare the option for the directory of the user's own configs."""
    parser.add_argument(
        "--config-dir", type=path_option, metavar="DIR", help="your own configs, first"
    )


def add_runs_dir(parser: ArgumentParser) -> None:
    """Declare the option for the directory in which runs are searched."""
    parser.add_argument(
        "--runs-dir", type=path_option, metavar="DIR", help="default: $ATTNLAB_RUNS, else runs"
    )
