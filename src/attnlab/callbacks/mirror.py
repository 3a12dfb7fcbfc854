"""Tells loggers what the record is told."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from attnlab.callbacks.timekeeper import Interrupted, Watcher
from attnlab.figures.grid import grid
from attnlab.logger.base import Logger
from attnlab.runs.attempt import Attempt
from attnlab.runs.patterns import INFLUENCE, Pattern, recorded
from attnlab.runs.record import Record

TABLES = ("train", "validation", "test")


class LoggerFailed(RuntimeError):
    """A mirror cannot begin; the run itself is as good as before."""


class Mirror(Watcher):
    """Passes on every row, and at each recorded step one picture of the first probe's maps."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = loggers

    @contextmanager
    def following(
        self, attempt: Attempt, record: Record, config: Mapping[str, Any]
    ) -> Iterator[None]:
        """Start the loggers, with what earlier attempts left to this one, and end them."""
        started: list[Logger] = []
        status = "failed"
        try:
            for logger in self.loggers:
                try:
                    logger.start(attempt.path, record.name, config)
                except Exception as error:
                    said = f"{type(logger).__name__} cannot start: {error}"
                    raise LoggerFailed(said) from error
                started.append(logger)
            if started:
                self._catch_up(record)
            yield
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            for logger in started:
                logger.end(status)

    def read(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.scalars(row["step"], {f"{table}/{k}": v for k, v in row.items() if k != "step"})

    def saw(self, patterns: Sequence[Pattern]) -> None:
        maps = [p for p in patterns if p.probe == patterns[0].probe and p.source != INFLUENCE]
        for logger in self.loggers if maps else ():
            pixels = grid([np.minimum(p.weights, 1) for p in maps])
            logger.picture(maps[0].step, f"patterns/{maps[0].probe}", pixels)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on what was measured at a step."""
        for logger in self.loggers:
            logger.scalars(step, values)

    def _catch_up(self, record: Record) -> None:
        """Tell all that the checkpoint covers, in order of steps."""
        rows = [(row["step"], t, row) for t in TABLES for row in record.rows(t).to_pylist()]
        seen: dict[int, list[Pattern]] = {}
        for pattern in recorded(record):
            seen.setdefault(pattern.step, []).append(pattern)
        for step in sorted({step for step, _, _ in rows} | seen.keys()):
            for _, table, row in (one for one in rows if one[0] == step):
                # An attempt by other code may lack a column.
                self.read(table, [{k: v for k, v in row.items() if v is not None}])
            if step in seen:
                self.saw(seen[step])
