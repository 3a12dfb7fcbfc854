"""Passes the rows of the record on to the loggers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa

from attnlab.callbacks.training_callback import RowListener
from attnlab.figures.grid import draw_pattern_grid
from attnlab.interp.head_stats import SCORES
from attnlab.interruption import Interrupted
from attnlab.logger.base import TOKENS, LoggedRun, Logger
from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.evidence_history import TABLE as EVIDENCE
from attnlab.run_record.head_scores import TABLE as HEADS
from attnlab.run_record.layers import Layers
from attnlab.run_record.mirrors import ONLINE, add_mirror, format_place, new_mirror
from attnlab.run_record.pattern_table import TABLE as PATTERNS
from attnlab.run_record.pattern_table import Pattern
from attnlab.run_record.record import Record, attempt_dir_and_origin
from attnlab.run_record.result import RunResult

TABLES = ("train", "validation", "test")
MIRRORED = (*TABLES, PATTERNS, HEADS, EVIDENCE)
GRID, PAGE = "patterns/grid", "patterns/page"
"""The names of pictures and page in a logger; a probe's name may be no valid file name."""


class LoggerFailed(RuntimeError):
    """A logger cannot start; the run itself is not affected."""


class RowLogger(RowListener):
    """Passes rows, the mean measures of heads (`average_over_heads`), and pictures to loggers.

    At each recorded step it logs one picture of the first probe's patterns; at the end, the metrics
    and facts of the result, a page that `build_page` builds from the last patterns, and the
    tables of patterns and heads as files. `layers` are those of the model. A logger that fails at
    the end does not fail the run: `warn` gets a message, and run.log the traceback.
    """

    def __init__(
        self,
        loggers: Sequence[Logger],
        run: LoggedRun,
        layers: Layers,
        build_page: Callable[[Sequence[Pattern]], str],
        warn: Callable[[str], None],
    ) -> None:
        self.loggers, self.run, self.layers = loggers, run, layers
        self.build_page, self.warn = build_page, warn
        self._step = 0
        self._last_patterns: list[Pattern] = []

    @contextmanager
    def logging_attempt(self, attempt: Attempt, record: Record) -> Iterator[None]:
        """Start the loggers, log the rows of earlier attempts of the run, and end them at exit."""
        started_loggers: list[Logger] = []
        status, has_earlier_rows = "failed", False
        try:
            for logger in self.loggers:
                try:
                    logger.start(attempt.path, self.run)
                except Exception as error:
                    message = f"{type(logger).__name__} cannot start: {error}"
                    raise LoggerFailed(message) from error
                started_loggers.append(logger)
            if started_loggers:
                self._log_rows(record)
                has_earlier_rows = any(record.rows(table).num_rows for table in MIRRORED)
            yield
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            for logger in started_loggers:
                if status != "failed":
                    with self._warn_on_error(logger, attempt):
                        self._log_end(logger, attempt.path, record if has_earlier_rows else None)
                with self._warn_on_error(logger, attempt):
                    logger.end(status)
                    if status == "finished" and logger.tool:
                        self._add_mirrors(logger, logger.tool, attempt, record)

    def replay(self, record: Record, result: RunResult, directory: Path) -> None:
        """Log a finished run from its record into `directory`, as `logging_attempt` would have.

        Raises whatever a logger raises, and RecordError for rows that are damaged.
        """
        attempt_path, resumed_from = attempt_dir_and_origin(record, result)
        for logger in self.loggers:
            logger.start(directory, self.run)
        status = "failed"
        try:
            self._log_rows(record)
            self.log_result(result, resumed_from["step"] if resumed_from else 0)
            for logger in self.loggers:
                self._log_end(logger, attempt_path, record if resumed_from else None)
            status = "finished"
        finally:
            for logger in self.loggers:
                logger.end(status)

    def log_result(self, result: RunResult, first_step: int) -> None:
        """Pass the final metrics and the facts of a result whose attempt began at a step."""
        self.log_scalars(result.steps, result.metrics)
        for logger in self.loggers:
            logger.log_summary(result_facts(result, first_step))

    def receive_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self.loggers or table not in MIRRORED:
            return
        for step, step_rows in _group_by_step(rows).items():
            if table == HEADS:
                self.log_scalars(step, average_over_heads(step_rows, self.layers))
            elif table == EVIDENCE:
                numbers = [row for row in step_rows if not row["head"]]
                self.log_scalars(
                    step, {f"{row['evidence']}/{row['name']}": row["value"] for row in numbers}
                )
            elif table == PATTERNS:
                self._log_picture(step, step_rows)
            for row in step_rows if table in TABLES else ():
                values = {f"{table}/{name}": row[name] for name in row if name != "step"}
                self.log_scalars(step, values)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass values measured at a step to all loggers."""
        self._step = step
        for logger in self.loggers:
            logger.log_scalars(step, values)

    def _log_picture(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a picture of the first probe's patterns."""
        self._step = step
        first_probe = rows[0]["probe"]
        self._last_patterns = [
            Pattern.from_row(row, self.layers) for row in rows if row["probe"] == first_probe
        ]
        maps = [pattern.weights for pattern in self._last_patterns if pattern.layer is not None]
        if maps:
            pixels = draw_pattern_grid(maps)
            for logger in self.loggers:
                logger.log_picture(step, GRID, pixels)

    def _log_rows(self, record: Record) -> None:
        """Log the rows of all tables of a record in order of steps."""
        rows_by_table = {
            table: _group_by_step(record.rows(table).to_pylist()) for table in MIRRORED
        }
        steps = sorted({step for rows_by_step in rows_by_table.values() for step in rows_by_step})
        for step in steps:
            for table, rows_by_step in rows_by_table.items():
                # A column that an attempt by other code lacks is null here.
                rows_without_nulls = [
                    {name: value for name, value in row.items() if value is not None}
                    for row in rows_by_step.get(step, ())
                ]
                self.receive_rows(table, rows_without_nulls)

    def _log_end(self, logger: Logger, attempt_path: Path, resumed_record: Record | None) -> None:
        if self._last_patterns:
            logger.log_page(self._step, PAGE, lambda: self.build_page(self._last_patterns))
        logger.log_files(lambda: _table_files(attempt_path, resumed_record))

    def _add_mirrors(self, logger: Logger, tool: str, attempt: Attempt, record: Record) -> None:
        """Write down that a logger's copy is complete, and where."""
        places = [format_place(attempt.path / tool, record.path)]
        for place in [*places, *([ONLINE] if logger.is_online else [])]:
            mirror = new_mirror(tool, place, logger.destination, self.run.run_id)
            add_mirror(record.path, mirror)

    @contextmanager
    def _warn_on_error(self, logger: Logger, attempt: Attempt) -> Iterator[None]:
        """Turn an error of a logger into a warning, since the record has the same data."""
        try:
            yield
        except Exception as error:
            # On a full disk, the traceback cannot be written.
            with suppress(OSError):
                attempt.log_exception(error)
            first_line = f"{type(error).__name__}: {error}".split("\n")[0]
            self.warn(f"{type(logger).__name__} does not show how the run ended: {first_line}")


def result_facts(result: RunResult, first_step: int) -> dict[str, int | float | str]:
    """Return the facts of a result by name, without those that are not known.

    `tokens_per_second` counts the tokens of the attempt that ended with the result, from
    `first_step` on; its time includes validation, recording and the final evaluation.
    """
    attempt_tokens = result.tokens * (result.steps - first_step) / max(result.steps, 1)
    is_timed = attempt_tokens > 0 and result.attempt_seconds > 0
    facts = {
        "parameters": result.parameters,
        "active_parameters": result.active_parameters,
        "flops_per_token": result.flops_per_token,
        TOKENS: result.tokens,
        "tokens_per_second": attempt_tokens / result.attempt_seconds if is_timed else None,
        "seconds": result.seconds,
        "state_size": result.state_size,
        "started": result.started,
        "data_hash": result.data_hash,
        **{key: (result.git or {}).get(key) for key in ("commit", "dirty")},
    }
    return {name: value for name, value in facts.items() if value is not None}


def average_over_heads(rows: Sequence[Mapping[str, Any]], layers: Layers) -> dict[str, float]:
    """Average each measure over the heads of a layer: "heads/0/entropy", and so on.

    For measures that define a head's role, the largest is added, "heads/0/induction_max": a mean
    over many heads hides a single one. A measure that is NaN for a head is left out.
    """
    scalars = {}
    for row in rows:
        layer, head_values = layers.by_path.get(row["layer"]), row["heads"]
        if layer is None or any(map(isnan, head_values)):
            continue
        name = f"heads/{layer.index}/{row['measure']}"
        scalars[name] = fmean(head_values)
        if row["measure"] in SCORES:
            scalars[f"{name}_max"] = max(head_values)
    return scalars


def _table_files(attempt_path: Path, resumed_record: Record | None) -> dict[str, Path]:
    """Return the files of patterns and heads by name; after a resume, with the earlier rows."""
    paths_by_name = {}
    for table in (PATTERNS, HEADS):
        path = attempt_path / f"{table}.arrow"
        if resumed_record is not None:
            path = attempt_path / "whole" / path.name
            write.make_directory(path.parent)
            # Each logger calls this; the file is written once.
            if not path.exists():
                write.create_file(path, _arrow_stream(resumed_record.rows(table)))
        if path.exists():
            paths_by_name[path.name] = path
    return paths_by_name


def _arrow_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _group_by_step(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    rows_by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        rows_by_step.setdefault(row["step"], []).append(row)
    return rows_by_step
