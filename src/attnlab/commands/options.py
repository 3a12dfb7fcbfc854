"""Options that many commands have; nothing heavy is imported for them."""

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

from attnlab.environment import given_path
from attnlab.errors import RequestError


def path_option(text: str) -> Path:
    """Return the path that an option gives, for argparse."""
    try:
        return given_path(text)
    except RequestError as error:
        raise ArgumentTypeError(str(error)) from error


def add_config_dir(parser: ArgumentParser) -> None:
    """Declare where the user's own configs are."""
    parser.add_argument(
        "--config-dir", type=path_option, metavar="DIR", help="your own configs, first"
    )


def add_runs_dir(parser: ArgumentParser) -> None:
    """Declare where runs are looked for."""
    parser.add_argument(
        "--runs-dir", type=path_option, metavar="DIR", help="default: $ATTNLAB_RUNS, else runs"
    )
