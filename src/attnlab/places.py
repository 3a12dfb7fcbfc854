"""Whether a place can be written, asked before the work for it begins."""

import tempfile
from pathlib import Path

from attnlab.errors import RequestError


def require_writable(directory: Path, option: str = "") -> None:
    """Refuse a directory that could not be made, or nothing made in it; nothing is left behind.

    `option` is how it was given, for the message. Raises RequestError.
    """
    place_text = f"{option} {directory}".strip()
    try:
        existing = next(
            place for place in (directory, *directory.absolute().parents) if _is_there(place)
        )
        if not existing.is_dir():
            raise RequestError(f"{place_text}: {existing} is a file, not a directory")
        # Asking for permissions is not enough: some file systems hold nothing of ours.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise RequestError(
            f"{place_text} cannot be written ({error.strerror}); name another"
        ) from error


def _is_there(place: Path) -> bool:
    return place.exists() or place.is_symlink()
