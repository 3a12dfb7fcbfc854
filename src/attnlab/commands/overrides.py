"""Overrides that options stand for; this module imports nothing that is slow to load."""

from collections.abc import Sequence
from pathlib import Path

from attnlab.errors import RequestError
from attnlab.places import quote_path


def with_runs_dir(overrides: Sequence[str], runs_dir: Path | None) -> list[str]:
    """Return overrides with the directory that `--runs-dir` names.

    Raises RequestError where an override names one as well.
    """
    if runs_dir is None:
        return [*overrides]
    if runs_dir_overrides := [
        override for override in overrides if override.startswith("runs_dir=")
    ]:
        raise RequestError(
            f"--runs-dir {runs_dir} and {runs_dir_overrides[0]} say the same; leave one"
        )
    return [*overrides, f"runs_dir={quote_path(runs_dir)}"]


def launcher_overrides(overrides: Sequence[str], jobs: int | None) -> list[str]:
    """Return overrides with the launcher that `--jobs` stands for.

    Raises RequestError for less than one, and where an override names a launcher as well.
    """
    if jobs is None:
        return [*overrides]
    if jobs < 1:
        raise RequestError(f"--jobs {jobs} must be at least 1")
    if named := [text for text in overrides if text.lstrip("+~").startswith("launcher")]:
        raise RequestError(f"--jobs {jobs} and {named[0]} both say how runs are done; leave one")
    return [*overrides, *(["launcher=processes", f"launcher.jobs={jobs}"] if jobs > 1 else [])]
