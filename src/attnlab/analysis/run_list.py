"""Runs as a list that can be narrowed down, tabulated and drawn: what a notebook begins with.

runs = attnlab.runs("runs", where="dataset=mqar num_layers>=2")
runs.frame()                         # a row for each run: what distinguishes them, and metrics
runs.curves("accuracy")              # a row for each run and step
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa

from attnlab.analysis.arms import flatten_identity, label_keys, nearest, shown
from attnlab.analysis.report import plain
from attnlab.analysis.select import Selection
from attnlab.analysis.where import conditions
from attnlab.errors import RecordError, RequestError
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult

if TYPE_CHECKING:
    from pandas import DataFrame

MEASURED = ("parameters", "active_parameters", "flops_per_token", "tokens", "seconds")
"""What a table shows of a result beside its metrics."""


@dataclass(frozen=True, eq=False)
class ListedRun:
    """A run of the record, finished or not."""

    record: Record
    state: str
    """New, running, interrupted, killed, failed, finished, or damaged."""
    result: RunResult | None = None
    """What it measured, once it is finished."""
    fault: str = ""
    """What is wrong with its record, where it is damaged."""

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.record.name

    @property
    def path(self) -> Path:
        """Its directory."""
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

    @property
    def metrics(self) -> dict[str, float]:
        """What it measured, by the names of the metrics; empty before it is finished."""
        return {} if self.result is None else dict(self.result.metrics)

    @property
    def facts(self) -> dict[str, Any]:
        """All that a condition can ask for."""
        result = self.result
        measured = {} if result is None else {key: getattr(result, key) for key in MEASURED}
        return {
            "name": self.name,
            "state": self.state,
            **self.config,
            **measured,
            **self.metrics,
        }


class RunList(Sequence[ListedRun]):
    """Runs in the order of their names."""

    def __init__(self, runs: Iterable[ListedRun]) -> None:
        self._runs = list(runs)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> ListedRun: ...
    @overload
    def __getitem__(self, index: slice) -> "RunList": ...
    def __getitem__(self, index: int | slice) -> "ListedRun | RunList":
        return RunList(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __repr__(self) -> str:
        states = [run.state for run in self]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<{len(self)} runs: {counts or 'none'}>"

    def where(self, text: str) -> "RunList":
        """Return the runs of which all conditions hold (`attnlab.analysis.where`).

        Raises RequestError for what is no condition, and for a key that no run has.
        """
        wanted = conditions(text)
        facts = [run.facts for run in self]
        known = {key for of_run in facts for key in of_run}
        for condition in wanted:
            if self._runs and condition.key not in known:
                raise RequestError(
                    f"where {condition.key!r}: no run has it; {nearest(condition.key, known)}"
                )
        return RunList(
            run
            for run, of_run in zip(self, facts, strict=True)
            if all(condition.holds(of_run) for condition in wanted)
        )

    @property
    def finished(self) -> "RunList":
        """The runs that have a result."""
        return RunList(run for run in self if run.result is not None)

    @property
    def selection(self) -> Selection:
        """The finished runs as comparisons take them, and why the others are left out.

        Raises RequestError where none is finished.
        """
        left_out = [
            {"run": r.name, "state": r.state, **({"why": r.fault} if r.fault else {})}
            for r in self
            if r.result is None
        ]
        records, results = {}, {}
        for run in self.finished:
            assert run.result is not None
            name = str(run.path) if run.name in results else run.name
            records[name], results[name] = run.record, run.result
        if not results:
            raise RequestError(f"none of {len(self)} runs is finished; train them to the end")
        return Selection(records, results, left_out)

    def table(self) -> pa.Table:
        """Return a row for each run: name, state, seed, what distinguishes them, and metrics.

        What distinguishes runs are the short names and all keys of their configs that differ.
        """
        sound = [run for run in self if run.state != "damaged"]
        keys = list(
            dict.fromkeys(["dataset", "variant", "num_layers", *self._distinguishing(sound)])
        )
        metrics = list(dict.fromkeys(name for run in self for name in run.metrics))
        columns: dict[str, list[Any]] = {
            "name": [run.name for run in self],
            "state": [run.state for run in self],
            "seed": [run.config.get("seed") for run in self],
            **{key: _alike([run.config.get(key) for run in self]) for key in keys},
            **{
                key: [None if run.result is None else getattr(run.result, key) for run in self]
                for key in MEASURED
            },
            **{name: [run.metrics.get(name) for run in self] for name in metrics},
        }
        return pa.table(columns)

    def frame(self) -> "DataFrame":
        """Return `table` as a pandas frame."""
        return self.table().to_pandas()

    def curve_table(self, metric: str, split: str = "validation") -> pa.Table:
        """Return a row for each run and step: name, seed, what distinguishes them, step, value.

        `metric` is a column of what was measured on a split while the runs trained, such as "loss";
        the split may be "train" too. Runs that did not measure it, and damaged ones, have no rows.
        Raises RequestError where no run did.
        """
        sound = [run for run in self if run.state != "damaged"]
        keys = [key for key in self._distinguishing(sound) if key != "seed"]
        parts, known = [], set()
        for run in sound:
            try:
                rows = run.record.rows(split)
            except RecordError:
                continue
            known |= set(rows.column_names) - {"step"}
            if metric not in rows.column_names:
                continue
            size = rows.num_rows
            facts = {"run": run.name, "seed": run.config.get("seed")}
            facts |= {key: shown(run.config.get(key)) for key in keys}
            parts.append(
                pa.table(
                    {
                        **{key: [value] * size for key, value in facts.items()},
                        "step": rows["step"],
                        "value": rows[metric].cast(pa.float64()),
                    }
                )
            )
        if not parts:
            raise RequestError(
                f"no run has rows of {metric!r} on {split}; {nearest(metric, known)}"
            )
        return pa.concat_tables(parts, promote_options="default")

    def curves(self, metric: str, split: str = "validation") -> "DataFrame":
        """Return `curve_table` as a pandas frame."""
        return self.curve_table(metric, split).to_pandas()

    @staticmethod
    def _distinguishing(runs: Sequence[ListedRun]) -> list[str]:
        configs = [{k: v for k, v in run.config.items() if k != "seed"} for run in runs]
        return label_keys(configs) if configs else []


def list_runs(records: Iterable[Record]) -> RunList:
    """List the runs of some records; a damaged one is listed with its fault."""
    return RunList(map(_listed, records))


def _listed(record: Record) -> ListedRun:
    try:
        run = ListedRun(record, record.state, record.result)
        # The config is read now, so that its damage is told here.
        _ = run.config
    except RecordError as error:
        return ListedRun(record, "damaged", fault=str(error))
    return run


def _alike(values: Sequence[Any]) -> list[Any]:
    """Return values of one type: as they are, or written as in an override."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and kinds <= {int, float, bool}:
        return list(values)
    if kinds <= {int, float}:
        return [value if value is None else float(value) for value in values]
    return [None if value is None else shown(plain(value)) for value in values]
