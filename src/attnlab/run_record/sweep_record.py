"""The list of a sweep's cells, and which commands have trained it: beside the runs, under its name.

`.sweeps/NAME/cells.jsonl` is only ever appended to: a command that asks for cells which are not
listed yet adds a line. What became of a cell is in its run alone. `.sweeps/NAME/launches/N` is a
command that trains cells; it is born with its claim, and whoever wants it to stop adds `cancel`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.forms import LaunchClaim, seal
from attnlab.run_record.holder import claim_of_this_process, holder_exists, is_here
from attnlab.run_record.json_lines import append_line, read_values
from attnlab.run_record.read import read_json_object

DIRECTORY = ".sweeps"
CANCEL, END = "cancel", "end.json"


@dataclass(frozen=True)
class ListedCell:
    """A run that a sweep consists of, whether it has begun or not."""

    overrides: tuple[str, ...]
    identity_hash: str
    """The end of the name that its run has or will have."""
    config_dir: str | None
    """The directory of the user's own configs that it was composed with."""


@dataclass(frozen=True)
class Launch:
    """A command that trains cells of a sweep."""

    path: Path
    claim: Mapping[str, Any]
    """Its host, pid, process_start, at (UTC), launcher (a choice) and jobs (runs at once)."""

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def is_here(self) -> bool:
        """Whether its process was started on this host."""
        return is_here(self.claim)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, as far as can be seen from here."""
        return not (self.path / END).exists() and holder_exists(self.claim)

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has asked it to stop."""
        return (self.path / CANCEL).exists()

    def cancel(self) -> None:
        """Ask it to stop; it looks for that every few seconds, wherever it runs."""
        with suppress(FileExistsError):
            write.create_file(self.path / CANCEL, b"")


class SweepRecord:
    """What stands beside the runs of a directory about one sweep."""

    def __init__(self, runs_dir: Path, name: str) -> None:
        self.runs_dir, self.name = runs_dir, name
        self.path = runs_dir / DIRECTORY / name

    @cached_property
    def _lines(self) -> list[Mapping[str, Any]]:
        lines = read_values(self.path / "cells.jsonl")
        return [line for line in lines if _is_line(line)]

    @property
    def cells(self) -> list[ListedCell]:
        """The cells in the order in which they were asked for, each once."""
        cell_by_hash: dict[str, ListedCell] = {}
        for line in self._lines:
            for overrides, identity_hash in line["cells"]:
                cell = ListedCell(tuple(overrides), identity_hash, line["config_dir"])
                cell_by_hash.setdefault(identity_hash, cell)
        return [*cell_by_hash.values()]

    @property
    def threads(self) -> int | None:
        """The number of threads of each run, as the first command shared them; None before it."""
        return self._lines[0]["threads"] if self._lines else None

    def add(self, cells: Sequence[ListedCell], threads: int) -> None:
        """List the cells that are not listed yet.

        Raises RecordError where the list cannot be written.
        """
        known_hashes = {cell.identity_hash for cell in self.cells}
        new_cells = [cell for cell in cells if cell.identity_hash not in known_hashes]
        if not new_cells:
            return
        line = {
            "at": claim_of_this_process()["at"],
            "config_dir": new_cells[0].config_dir,
            "threads": threads,
            "cells": [[cell.overrides, cell.identity_hash] for cell in new_cells],
        }
        try:
            write.make_directory(self.path)
            append_line(self.path / "cells.jsonl", line)
        except OSError as error:
            raise RecordError(f"{self.path} cannot be written ({error.strerror})") from error
        del self._lines

    @property
    def launches(self) -> list[Launch]:
        """The commands that have trained cells; one whose claim cannot be read is passed over."""
        launches = []
        for path in sorted(self._launch_dirs(), key=lambda path: int(path.name)):
            with suppress(RecordError):
                claim = read_json_object(path / "claim.json", self.path, LaunchClaim)
                if claim is not None:
                    launches.append(Launch(path, claim))
        return launches

    @contextmanager
    def launching(self, launcher: str, jobs: int) -> Iterator[Launch]:
        """State that this process trains cells, until the block ends."""
        claim = {**claim_of_this_process(), "launcher": launcher, "jobs": jobs}
        write.make_directory(self.path / "launches")
        content = {"claim.json": write.json_bytes(seal(claim))}
        number = max([0, *(int(path.name) for path in self._launch_dirs())]) + 1
        while True:
            path = self.path / "launches" / str(number)
            try:
                write.publish_directory(path, content)
                break
            except FileExistsError:
                number += 1
        try:
            yield Launch(path, claim)
        finally:
            with suppress(OSError):
                write.create_file(
                    path / END, write.json_bytes(seal({"at": claim_of_this_process()["at"]}))
                )

    def _launch_dirs(self) -> list[Path]:
        directory = self.path / "launches"
        if not directory.is_dir():
            return []
        return [path for path in directory.iterdir() if path.name.isdecimal()]


def sweep_names(runs_dir: Path) -> list[str]:
    """Return the names of the sweeps that are listed beside the runs of a directory."""
    directory = runs_dir / DIRECTORY
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if (path / "cells.jsonl").is_file())


def _is_line(value: Any) -> bool:
    """Return whether a value is a line of cells, as `SweepRecord.add` writes it."""
    match value:
        case {"config_dir": None | str(), "threads": int(), "cells": list(cells)}:
            return all(_is_cell(cell) for cell in cells)
    return False


def _is_cell(value: Any) -> bool:
    match value:
        case [list(overrides), str()]:
            return all(isinstance(override, str) for override in overrides)
    return False
