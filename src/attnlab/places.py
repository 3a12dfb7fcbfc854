"""Whether a place can be written, asked before the work for it begins."""

import tempfile
from pathlib import Path

from attnlab.errors import RequestError


def require_writable(directory: Path, option: str = "") -> None:
    """Refuse a directory that could not be made, or nothing made in it; nothing is left behind.

    `option` is how it was given, for the message. Raises RequestError.
    """
    directory_text = f"{option} {directory}".strip()
    try:
        nearest_existing = next(
            path for path in (directory, *directory.absolute().parents) if _exists(path)
        )
        if not nearest_existing.is_dir():
            raise RequestError(f"{directory_text}: {nearest_existing} is a file, not a directory")
        # Asking for permissions is not enough: some file systems hold nothing of ours.
        with tempfile.TemporaryFile(dir=nearest_existing):
            pass
    except OSError as error:
        raise RequestError(
            f"{directory_text} cannot be written ({error.strerror}); name another"
        ) from error


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def quote_path(path: Path) -> str:
    """Return a path as the value of an override, whatever characters it has."""
    escaped_path = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped_path}"'
