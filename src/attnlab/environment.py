"""What the environment says, and paths as people write them."""

import os
from pathlib import Path

from attnlab.errors import RequestError


def read_variable(name: str) -> str | None:
    """Return an environment variable; an empty one is an unset one."""
    return os.environ.get(name) or None


def expand_home(text: str | Path) -> Path:
    """Return a path that a person wrote, with `~` as their home.

    Raises RequestError where the home is not known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise RequestError(
            f"{text}: the home of `~` is not known here (HOME is not set); write the path out"
        ) from error


def cache_dir() -> Path:
    """Return where what can be made again is kept: $ATTNLAB_CACHE, else the user's cache.

    Raises RequestError where the home is not known.
    """
    if directory := read_variable("ATTNLAB_CACHE"):
        return expand_home(directory)
    try:
        return expand_home(read_variable("XDG_CACHE_HOME") or "~/.cache") / "attnlab"
    except RequestError as error:
        raise RequestError(f"{error}, or set ATTNLAB_CACHE to a directory") from error


def default_runs_dir() -> Path:
    """Return where runs go and are looked for where nobody says: $ATTNLAB_RUNS, else runs."""
    return expand_home(read_variable("ATTNLAB_RUNS") or "runs")
