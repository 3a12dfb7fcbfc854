"""Tells loggers what the record is told."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa

from attnlab.callbacks.timekeeper import Watcher
from attnlab.figures.grid import grid
from attnlab.interp.head_stats import SCORES
from attnlab.interruption import Interrupted
from attnlab.logger.base import Logger
from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.head_scores import TABLE as HEADS
from attnlab.run_record.layers import Layers
from attnlab.run_record.patterns import TABLE as PATTERNS
from attnlab.run_record.patterns import Pattern
from attnlab.run_record.record import Record

TABLES = ("train", "validation", "test")
MIRRORED = (*TABLES, PATTERNS, HEADS)
GRID, PAGE = "patterns/grid", "patterns/page"
"""What the pictures and the page go by. A probe can be a text, which is no name of a file."""


class LoggerFailed(RuntimeError):
    """A mirror cannot begin; the run itself is as good as before."""


class Mirror(Watcher):
    """Passes on every row, what heads are in each layer (`by_layer`), and pictures.

    At each recorded step that is one picture of the first probe's maps; at the end `page` makes a
    page of the last of them, and the tables of patterns and heads follow as files. `layers` are
    those of the model. A logger that fails at the end does not fail the run: `warn` is told, and
    run.log says where.
    """

    def __init__(
        self,
        loggers: Sequence[Logger],
        layers: Layers,
        page: Callable[[Sequence[Pattern]], str],
        warn: Callable[[str], None],
    ) -> None:
        self.loggers, self.layers, self.page, self.warn = loggers, layers, page, warn
        self._step = 0
        self._last: list[Pattern] = []

    @contextmanager
    def following(
        self, attempt: Attempt, record: Record, config: Mapping[str, Any]
    ) -> Iterator[None]:
        """Start the loggers, with what earlier attempts left to this one, and end them."""
        started: list[Logger] = []
        status, resumed = "failed", False
        try:
            for logger in self.loggers:
                try:
                    logger.start(attempt.path, record.name, config)
                except Exception as error:
                    said = f"{type(logger).__name__} cannot start: {error}"
                    raise LoggerFailed(said) from error
                started.append(logger)
            if started:
                resumed = self._catch_up(record)
            yield
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            for logger in started:
                if status != "failed":
                    with self._forgiving(logger, attempt):
                        self._conclude(logger, attempt, record if resumed else None)
                with self._forgiving(logger, attempt):
                    logger.end(status)

    def read(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self.loggers or table not in MIRRORED:
            return
        for step, some in _by_step(rows).items():
            if table == HEADS:
                self.scalars(step, by_layer(some, self.layers))
            elif table == PATTERNS:
                self._draw(step, some)
            for row in some if table in TABLES else ():
                self.scalars(step, {f"{table}/{k}": v for k, v in row.items() if k != "step"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on what was measured at a step."""
        self._step = step
        for logger in self.loggers:
            logger.scalars(step, values)

    def _draw(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show the first probe's attention."""
        self._step = step
        first = rows[0]["probe"]
        self._last = [Pattern.read(row, self.layers) for row in rows if row["probe"] == first]
        maps = [pattern.weights for pattern in self._last if pattern.layer is not None]
        if maps:
            pixels = grid(maps)
            for logger in self.loggers:
                logger.picture(step, GRID, pixels)

    def _catch_up(self, record: Record) -> bool:
        """Tell all that the checkpoint covers, in order of steps; False where that is nothing."""
        tables = {name: _by_step(record.rows(name).to_pylist()) for name in MIRRORED}
        steps = sorted({step for rows in tables.values() for step in rows})
        for step in steps:
            for table, rows in tables.items():
                # An attempt by other code may lack a column.
                known = [
                    {k: v for k, v in row.items() if v is not None} for row in rows.get(step, ())
                ]
                self.read(table, known)
        return bool(steps)

    def _conclude(self, logger: Logger, attempt: Attempt, resumed: Record | None) -> None:
        if self._last:
            logger.page(self._step, PAGE, lambda: self.page(self._last))
        logger.files(lambda: _packed(attempt, resumed))

    @contextmanager
    def _forgiving(self, logger: Logger, attempt: Attempt) -> Iterator[None]:
        """Let a logger fail: what it shows is in the record, which is not finished yet."""
        try:
            yield
        except Exception as error:
            # A full disk has no room for the word of it.
            with suppress(OSError):
                attempt.log_exception(error)
            line = f"{type(error).__name__}: {error}".split("\n")[0]
            self.warn(f"{type(logger).__name__} does not show how the run ended: {line}")


def by_layer(rows: Sequence[Mapping[str, Any]], layers: Layers) -> dict[str, float]:
    """Average each measure over the heads of a layer: "heads/0/entropy", and so on.

    Of what heads are named by, the largest is there too, "heads/0/induction_max": a mean over many
    hides one. What no query could have is left out.
    """
    scalars = {}
    for row in rows:
        layer, values = layers.by_path.get(row["layer"]), row["heads"]
        if layer is None or any(map(isnan, values)):
            continue
        name = f"heads/{layer.index}/{row['measure']}"
        scalars[name] = fmean(values)
        if row["measure"] in SCORES:
            scalars[f"{name}_max"] = max(values)
    return scalars


def _packed(attempt: Attempt, resumed: Record | None) -> dict[str, Path]:
    """Give the files of patterns and heads; of an attempt that resumed, with what was before."""
    found = {}
    for table in (PATTERNS, HEADS):
        path = attempt.path / f"{table}.arrow"
        if resumed is not None:
            path = attempt.path / "whole" / path.name
            write.make_directory(path.parent)
            # Every logger asks for them.
            if not path.exists():
                write.new_file(path, _stream(resumed.rows(table)))
        if path.exists():
            found[path.name] = path
    return found


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _by_step(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["step"], []).append(row)
    return found
