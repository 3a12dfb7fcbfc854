"""Runs as a list that can be filtered, joined, tabulated and plotted, for notebooks.

runs = attnlab.runs("runs", where="dataset=mqar num_layers>=2")
runs.frame()                         # a row for each run: what distinguishes them, and metrics
runs.curves("validation/accuracy")   # a row for each run and step
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import pyarrow as pa

from attnlab.analysis.arms import (
    flatten_identity,
    format_value,
    label_keys,
    resolve_key,
    suggest_key,
)
from attnlab.analysis.left_out import LeftOut, describe_by_state
from attnlab.analysis.report import align_rows, to_plain
from attnlab.analysis.where import Condition, parse_conditions
from attnlab.errors import RecordError, RequestError
from attnlab.run_record.annotations import Annotations
from attnlab.run_record.record import AttemptState, Record
from attnlab.run_record.result import FailedAttempt, RunResult
from attnlab.run_record.result_index import ResultIndex

if TYPE_CHECKING:
    from pandas import DataFrame


RESULT_FIELDS = ("parameters", "active_parameters", "flops_per_token", "tokens", "seconds")
"""The fields of a result that a table shows beside the metrics."""
MOST_METRICS, MOST_LINES, MOST_KEYS = 3, 17, 4
"""The number of metrics, runs and distinguishing keys that a short text shows."""
CURVE_SPLITS = ("train", "validation", "test")
"""The splits on which a run measures while it trains."""
STATES = ("new", "running", "interrupted", "killed", "failed", "finished", "damaged")
"""The states of a run: those of its record, or damaged where that cannot be read."""


@dataclass(frozen=True, eq=False, repr=False)
class ListedRun:
    """A run of the record, finished or not."""

    record: Record
    state: str
    """One of `STATES`."""
    result: RunResult | None = None
    """The result, once the run is finished."""
    fault: str | None = None
    """The fault of its record, where it is damaged."""

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return self.record.name

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.record.path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config by dotted keys and the short names; empty where the record is damaged."""
        if self.state == "damaged":
            return {}
        if self.result is not None:
            return {"seed": self.result.seed, **flatten_identity(self.result.identity)}
        identity = self.record.identity
        return {"seed": identity.get("seed"), **flatten_identity(identity)}

    def __repr__(self) -> str:
        metric_texts = [f"{name} {value:.4g}" for name, value in self.metrics.items()]
        if len(metric_texts) > MOST_METRICS:
            metric_texts[MOST_METRICS:] = ["..."]
        return f"<run {self.name}: {', '.join([self.state, *metric_texts])}>"

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics by name; empty before the run is finished."""
        return {} if self.result is None else dict(self.result.metrics)

    @cached_property
    def last_attempt(self) -> AttemptState | None:
        """Its last attempt; None where there is none, or it cannot be read."""
        with suppress(RecordError):
            attempts = self.record.attempts
            return attempts[-1] if attempts else None
        return None

    @cached_property
    def failure(self) -> str | None:
        """Why it failed, or cannot be read; None where it did not."""
        if self.state != "failed":
            return self.fault
        summary = None if self.last_attempt is None else self.last_attempt.summary
        if isinstance(summary, FailedAttempt):
            return f"{summary.error.type}: {summary.error.message}"
        return None

    @cached_property
    def annotations(self) -> Annotations:
        """Its tags, notes and sweeps; nothing where they cannot be read."""
        try:
            return self.record.annotations
        except RecordError:
            return Annotations()

    @property
    def facts(self) -> dict[str, Any]:
        """All values that a condition can test, by key."""
        result = self.result
        result_fields = (
            {} if result is None else {key: getattr(result, key) for key in RESULT_FIELDS}
        )
        return {
            "run": self.name,
            "state": self.state,
            "tag": self.annotations.tags,
            "sweep": self.annotations.sweeps,
            **self.config,
            **result_fields,
            **self.metrics,
        }


class Selection(NamedTuple):
    """The records that a user named."""

    records: dict[str, Record]
    """The records of finished runs, by a unique name."""
    results: dict[str, RunResult]
    left_out: list[LeftOut]
    """The runs without a usable result."""


class RunList(Sequence[ListedRun]):
    """Runs in their order, each of them once."""

    def __init__(self, runs: Iterable[ListedRun]) -> None:
        self._runs = list({run.record.real_path: run for run in runs}.values())

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> ListedRun: ...
    @overload
    def __getitem__(self, index: slice) -> "RunList": ...
    def __getitem__(self, index: int | slice) -> "ListedRun | RunList":
        return RunList(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __add__(self, runs: Iterable[ListedRun]) -> "RunList":
        """Return the runs of both; one that is in both is there once."""
        return RunList([*self, *runs])

    def __repr__(self) -> str:
        """Return the number of runs by state, and a line for each of the first runs."""
        states = [run.state for run in self]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        lines = [f"{len(self)} runs: {counts or 'none'}"]
        readable_runs = [run for run in self if run.state != "damaged"]
        keys = ["seed", *self._distinguishing_keys(readable_runs)[:MOST_KEYS]]
        first_runs = self._runs[:MOST_LINES]
        rows = [["run", "state", *keys, "metric"]]
        for run in first_runs:
            values = [format_value(run.config.get(key)) for key in keys]
            rows.append([run.name, run.state, *values, _main_metric_text(run)])
        if first_runs:
            lines += align_rows(rows)
        if len(self) > MOST_LINES:
            lines.append(f"... and {len(self) - MOST_LINES} more; .frame() has all")
        return "\n".join(lines)

    def where(self, text: str) -> "RunList":
        """Return the runs for which all conditions hold (`attnlab.analysis.where`).

        Raises RequestError for an invalid condition, and for a key or a value that no run has.
        """
        conditions = parse_conditions(text)
        facts_by_run = [run.facts for run in self]
        existing_keys = {key for run_facts in facts_by_run for key in run_facts}
        if self._runs:
            conditions = [_with_existing_key(c, existing_keys) for c in conditions]
        for condition in conditions if self._runs else ():
            values = [
                value
                for run_facts in facts_by_run
                if condition.key in run_facts
                for value in _as_values(run_facts[condition.key])
            ]
            # That no run failed is an answer, and no mistake.
            condition.require_possible([*values, *(STATES if condition.key == "state" else ())])
        return RunList(
            run
            for run, run_facts in zip(self, facts_by_run, strict=True)
            if all(condition.holds(run_facts) for condition in conditions)
        )

    @property
    def finished(self) -> "RunList":
        """The runs that have a result."""
        return RunList(run for run in self if run.result is not None)

    @property
    def selection(self) -> Selection:
        """The finished runs as comparisons take them, and the reasons why others are left out.

        Raises RequestError where none is finished.
        """
        left_out = [LeftOut(run.name, run.state, run.fault) for run in self if run.result is None]
        records, results = {}, {}
        for run in self.finished:
            assert run.result is not None
            name = str(run.path) if run.name in results else run.name
            records[name], results[name] = run.record, run.result
        if not results:
            state_text = describe_by_state(left_out) or "there are no runs"
            if left_out and all(run.state == "damaged" for run in left_out):
                raise RequestError(f"no run can be used: {state_text}")
            raise RequestError(f"no run is finished: {state_text}; train them to the end")
        return Selection(records, results, left_out)

    def table(self) -> pa.Table:
        """Return a row for each run: run, state, seed, distinguishing keys and metrics.

        The distinguishing keys are the short names and all config keys in which the runs differ.
        """
        readable_runs = [run for run in self if run.state != "damaged"]
        keys = list(
            dict.fromkeys(
                ["dataset", "variant", "num_layers", *self._distinguishing_keys(readable_runs)]
            )
        )
        metric_names = list(dict.fromkeys(name for run in self for name in run.metrics))
        columns: dict[str, list[Any]] = {
            "run": [run.name for run in self],
            "state": [run.state for run in self],
            "seed": [run.config.get("seed") for run in self],
            **{key: _unify_type([run.config.get(key) for run in self]) for key in keys},
            **{
                key: [None if run.result is None else getattr(run.result, key) for run in self]
                for key in RESULT_FIELDS
            },
            **{name: [run.metrics.get(name) for run in self] for name in metric_names},
        }
        return pa.table(columns)

    def frame(self) -> "DataFrame":
        """Return `table` as a pandas frame; integers stay integers where some are missing."""
        return to_frame(self.table())

    def curve_table(self, metric: str, split: str | None = None) -> pa.Table:
        """Return a row for each run and step: run, seed, distinguishing keys, step and value.

        The keys have the same types as in `table`.
        `metric` is a quantity measured on a split during training, such as "validation/loss", or
        "loss" with the split (None: validation) beside it; the split may be "train" too. Runs that
        did not measure it, and damaged runs, have no rows. Raises RequestError where no run
        measured it, and for two splits.
        """
        split, quantity = _split_and_quantity(metric, split)
        readable_runs = [run for run in self if run.state != "damaged"]
        keys = ["seed", *self._distinguishing_keys(readable_runs)]
        key_columns = {
            key: pa.array(_unify_type([run.config.get(key) for run in readable_runs]))
            for key in keys
        }
        tables = []
        for index, run in enumerate(readable_runs):
            rows = _rows_or_none(run, split)
            if rows is None or quantity not in rows.column_names:
                continue
            num_rows = rows.num_rows
            tables.append(
                pa.table(
                    {
                        "run": [run.name] * num_rows,
                        **{key: pa.repeat(key_columns[key][index], num_rows) for key in keys},
                        "step": rows["step"],
                        "value": rows[quantity].cast(pa.float64()),
                    }
                )
            )
        if not tables:
            raise _no_rows_error(readable_runs, metric, split)
        return pa.concat_tables(tables, promote_options="default")

    def curves(self, metric: str, split: str | None = None) -> "DataFrame":
        """Return `curve_table` as a pandas frame; it can be merged with `frame` on "run"."""
        return to_frame(self.curve_table(metric, split))

    @staticmethod
    def _distinguishing_keys(runs: Sequence[ListedRun]) -> list[str]:
        configs = [
            {key: value for key, value in run.config.items() if key != "seed"} for run in runs
        ]
        return label_keys(configs) if configs else []


def _with_existing_key(condition: Condition, existing_keys: Collection[str]) -> Condition:
    """Return a condition on a key that runs have; the end of a single key is enough.

    Raises RequestError for a key that no run has.
    """
    key = resolve_key(condition.key, existing_keys)
    if key is None:
        hint = suggest_key(condition.key, existing_keys)
        raise RequestError(f"where {condition.key!r}: no run has it; {hint}")
    return replace(condition, key=key)


def list_runs(records: Iterable[Record]) -> RunList:
    """Return the runs of some records; a damaged run comes with its fault."""
    index_by_directory: dict[Path, ResultIndex] = {}
    runs = []
    for record in records:
        directory = record.path.parent
        if directory not in index_by_directory:
            index_by_directory[directory] = ResultIndex(directory)
        runs.append(_open_run(record, index_by_directory[directory]))
    for index in index_by_directory.values():
        index.save()
    return RunList(runs)


def _open_run(record: Record, index: ResultIndex) -> ListedRun:
    """Return the run of a record, with its fault where the record cannot be read."""
    try:
        result = index.result(record)
        run = ListedRun(record, record.state if result is None else "finished", result)
        # The config is read now, so that its damage is reported here.
        _ = run.config
    except RecordError as error:
        return ListedRun(record, "damaged", fault=str(error))
    return run


def _split_and_quantity(metric: str, split: str | None) -> tuple[str, str]:
    """Return the split of a metric and its name there, as in "validation" and "loss".

    Raises RequestError where the metric names another split than `split`.
    """
    metric_split, _, quantity = metric.partition("/")
    if metric_split not in CURVE_SPLITS or not quantity:
        return split or "validation", metric
    if split not in (None, metric_split):
        raise RequestError(f"{metric!r} is of {metric_split}, and the split is {split}; give one")
    return metric_split, quantity


def _rows_or_none(run: ListedRun, split: str) -> pa.Table | None:
    """Return what a run measured on a split while it trained; None where that is damaged."""
    try:
        return run.record.rows(split)
    except RecordError:
        return None


def _no_rows_error(runs: Sequence[ListedRun], metric: str, split: str) -> RequestError:
    """Return the error for a metric that no run measured, with the nearest that was measured."""
    if "/" not in metric:
        hint = suggest_key(metric, _measured_quantities(runs, split))
        return RequestError(f"no run has rows of {metric!r} on {split}; {hint}")
    names_with_split = {
        f"{curve_split}/{quantity}"
        for curve_split in CURVE_SPLITS
        for quantity in _measured_quantities(runs, curve_split)
    }
    return RequestError(f"no run has rows of {metric!r}; {suggest_key(metric, names_with_split)}")


def _measured_quantities(runs: Sequence[ListedRun], split: str) -> set[str]:
    """Return the names of what any of the runs measured on a split while it trained."""
    tables = [_rows_or_none(run, split) for run in runs]
    return {
        name for rows in tables if rows is not None for name in rows.column_names if name != "step"
    }


def _main_metric_text(run: ListedRun) -> str:
    """Return the main metric of a finished run as text."""
    result = run.result
    if result is None or result.headline not in result.metrics:
        return ""
    return f"{result.headline} {result.metrics[result.headline]:.4g}"


def _as_values(fact: Any) -> Sequence[Any]:
    """Return the values of a fact; only tags and sweeps have several, or none."""
    return fact if isinstance(fact, tuple) else (fact,)


def to_frame(table: pa.Table) -> "DataFrame":
    """Return a table as a pandas frame whose integers stay integers where some are missing."""
    from pandas import Int64Dtype

    return table.to_pandas(types_mapper={pa.int64(): Int64Dtype()}.get)


def _unify_type(values: Sequence[Any]) -> list[Any]:
    """Return the values as one type: numbers as they are, others as an override writes them."""
    types = {type(value) for value in values if value is not None}
    if len(types) <= 1 and types <= {int, float, bool}:
        return list(values)
    if types <= {int, float}:
        return [value if value is None else float(value) for value in values]
    return [None if value is None else format_value(to_plain(value)) for value in values]
