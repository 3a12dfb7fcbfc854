"""The page of runs: what there is, how far it is, and the cells of a sweep."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

from attnlab.analysis.arms import format_value
from attnlab.analysis.run_details import RunRow, runs_report
from attnlab.analysis.run_list import STATES, RunList
from attnlab.analysis.run_progress import RunProgress
from attnlab.analysis.sweep_grid import GridCell, SweepGrid, sweep_grid
from attnlab.analysis.units import format_age, format_duration
from attnlab.printable import one_line
from attnlab.report.frame import ServedFrame, render_page
from attnlab.report.view import PageView
from attnlab.run_record.choice_name import shortest_endings
from attnlab.run_record.record import hash_in_name

ROWS_PER_PAGE = 100
SHADES = 5
"""The number of colours of a grid's cells."""
MOST_FAILURE = 160
"""The most characters of a reason why a run failed in the table; its own page has all."""
MOST_SWEEPS = 12
"""The number of sweeps that are listed above the runs."""


@dataclass(frozen=True)
class RunsView(PageView):
    """What of the runs is shown, as the address of the page says it."""

    PATH: ClassVar[str] = "/"
    where: str = ""
    """Conditions as `--where` takes them."""
    sort: str = "-age"
    """A column; with `-` before it, the largest value first."""
    page: int = 1
    archived: bool = False
    rows: str = ""
    """The key of the grid's rows."""
    columns: str = ""
    metric: str = ""


class RunCell(NamedTuple):
    """A cell of the table of runs."""

    header: str
    text: str
    is_number: bool


@dataclass(frozen=True)
class RunLine:
    """A row of the table of runs."""

    run: RunRow
    address: str
    short_name: str
    """The name without its hash."""
    metric: str
    age: str
    duration: str
    cells: Sequence[RunCell]
    """The values of the keys in which the runs differ."""
    progress: RunProgress | None
    """How far it is, where it is not finished."""
    failure: str
    """Why it failed; empty where it did not."""


@dataclass(frozen=True)
class SweepLine:
    """A sweep above the table."""

    name: str
    address: str
    num_runs: int
    counts: str
    """The number of runs by state."""


@dataclass(frozen=True)
class GridView:
    """A grid as the page shows it."""

    grid: SweepGrid
    shade_by_mean: Mapping[float, int]
    """The colour of each mean, the better ones stronger."""

    def shade(self, cell: GridCell) -> str:
        """Return the class of a cell's colour; nothing for a cell without a mean."""
        return "" if cell.mean is None else f"shade-{self.shade_by_mean[cell.mean]}"

    def state_text(self, cell: GridCell) -> str:
        """Return the runs of a cell that are not finished, by state."""
        return describe_states({s: n for s, n in cell.states.items() if s != "finished"})


def runs_page(
    runs: RunList,
    num_all_runs: int,
    view: RunsView,
    progress_by_run: Mapping[str, RunProgress],
    served: ServedFrame,
    notice: str | None = None,
) -> str:
    """Return the page of the runs that are selected, of `num_all_runs` in all."""
    report = runs_report(runs, with_sizes=False)
    keys = list(dict.fromkeys(key for row in report.runs for key in row.keys))
    rows = _sorted_rows(report.runs, view.sort)
    num_pages = max(1, ceil(len(rows) / ROWS_PER_PAGE))
    page = min(max(1, view.page), num_pages)
    first = (page - 1) * ROWS_PER_PAGE
    shown = rows[first : first + ROWS_PER_PAGE]
    header_by_key = shortest_endings(keys)
    failures = {run.name: run.failure for run in runs}
    return render_page(
        "runs.html",
        "Runs",
        "runs",
        {},
        has_charts=False,
        served=served,
        notice=notice,
        view=replace(view, page=page),
        lines=[_line(row, header_by_key, progress_by_run, failures[row.run]) for row in shown],
        headers=header_by_key,
        metrics=list(dict.fromkeys(row.metric for row in rows if row.metric)),
        sweeps=[] if len(runs) < num_all_runs else _sweep_lines(runs, view),
        grid=_grid_view(runs, view),
        counts=describe_states(Counter(run.state for run in runs)),
        num_runs=len(runs),
        num_all_runs=num_all_runs,
        num_pages=num_pages,
        compare_address=f"/compare?{urlencode({'where': view.where})}",
        first=first + 1,
        total_time=format_duration(sum((row.seconds or 0.0 for row in rows), 0.0)),
    )


def describe_states(counts: Mapping[str, int]) -> str:
    """Return how many runs are in each state, as in `22 finished, 1 failed`."""
    return ", ".join(f"{counts[state]} {state}" for state in STATES[::-1] if counts.get(state))


def _line(
    row: RunRow,
    header_by_key: Mapping[str, str],
    progress_by_run: Mapping[str, RunProgress],
    failure: str | None,
) -> RunLine:
    """Return the texts of a row."""
    return RunLine(
        row,
        f"/run?{urlencode({'run': row.run})}",
        row.run.removesuffix(f"-{hash_in_name(row.run)}"),
        metric="" if row.value is None else f"{row.value:.4g}",
        age="" if row.age is None else format_age(row.age),
        duration="" if row.seconds is None else format_duration(row.seconds),
        cells=[
            RunCell(header_by_key[key], format_value(value), isinstance(value, (int, float)))
            for key in header_by_key
            for value in [row.keys.get(key)]
        ],
        progress=progress_by_run.get(row.run),
        failure=shorten(failure or ""),
    )


def shorten(text: str) -> str:
    """Return a text in one line, cut where it is longer than `MOST_FAILURE`."""
    line = one_line(text)
    return line if len(line) <= MOST_FAILURE else f"{line[: MOST_FAILURE - 1]}…"


def _sorted_rows(rows: Sequence[RunRow], sort: str) -> list[RunRow]:
    """Return the rows by a column; those without a value stand at the end."""
    column = sort.removeprefix("-")

    def value_of(row: RunRow) -> Any:
        if column in row.keys:
            return row.keys[column]
        return getattr(row, column, None) if column in SORTABLE else None

    with_value = [row for row in rows if value_of(row) is not None]
    without_value = [row for row in rows if value_of(row) is None]
    are_numbers = all(isinstance(value_of(row), (int, float)) for row in with_value)
    # The age grows into the past, and who asks for the last ones wants the youngest first.
    is_reversed = sort.startswith("-") != (column == "age")
    with_value.sort(
        key=lambda row: value_of(row) if are_numbers else format_value(value_of(row)),
        reverse=is_reversed,
    )
    return with_value + without_value


SORTABLE = ("run", "state", "dataset", "seed", "value", "age", "seconds")
"""The columns, beside the keys, by which runs can be sorted."""


def _sweep_lines(runs: RunList, view: RunsView) -> list[SweepLine]:
    """Return the sweeps of some runs, the last ones."""
    states_by_sweep: dict[str, list[str]] = {}
    for run in runs:
        for sweep in run.annotations.sweeps:
            states_by_sweep.setdefault(sweep, []).append(run.state)
    return [
        SweepLine(
            sweep,
            view.address(where=f"sweep={sweep}", page=1),
            len(states),
            describe_states(Counter(states)),
        )
        for sweep, states in list(states_by_sweep.items())[-MOST_SWEEPS:]
    ]


def _grid_view(runs: RunList, view: RunsView) -> GridView | None:
    """Return the grid of selected runs; None where they are no sweep, or of several datasets."""
    readable_runs = [run for run in runs if run.state != "damaged"]
    is_selected = "sweep=" in view.where or bool(view.rows or view.columns)
    if not is_selected or len({run.config.get("dataset") for run in readable_runs}) != 1:
        return None
    grid = sweep_grid(runs, view.rows or None, view.columns or None, view.metric or None)
    means = sorted(
        {cell.mean for row in grid.cells for cell in row if cell.mean is not None},
        reverse=not grid.higher_is_better,
    )
    low, high = (means[0], means[-1]) if means else (0.0, 0.0)
    return GridView(
        grid,
        {
            mean: min(SHADES - 1, int(SHADES * (mean - low) / (high - low))) if high != low else 2
            for mean in means
        },
    )
