"""The page of one run, its figures, and its rows as they are written."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from attnlab.analysis.run_details import run_details, run_diff
from attnlab.analysis.run_list import ListedRun
from attnlab.dashboard.answers import (
    figure_place,
    html_answer,
    item_at,
    json_answer,
    pdf_answer,
    read_view,
)
from attnlab.dashboard.context import Context
from attnlab.errors import RecordError, RequestError
from attnlab.report.run_page import RecordedRows, RunView, run_charts, run_page
from attnlab.run_record.read import read_plain_file
from attnlab.run_record.record import Record

MOST_LOG, MOST_LOG_FILE = 20_000, 2**24
"""The most characters of a log that a page shows, and the most bytes of one that is read."""
TABLES = ("train", "validation", "test")


class RunAnswers:
    """Answers what is asked about one run."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        endpoint = self._context.endpoint
        return [
            Route("/run", endpoint(self.page)),
            Route("/run/figure.pdf", endpoint(self.figure)),
            Route("/api/run", endpoint(self.json)),
            Route("/api/rows", endpoint(self.rows)),
        ]

    def page(self, request: Request) -> Response:
        """Return the page of a run; a damaged one says what is wrong with it."""
        view = read_view(RunView, request.query_params)
        run = self._context.require_run(view.run)
        frame = self._context.frame("", view.address("/run/figure.pdf"))
        notice, diff = run.fault, None
        if view.other:
            try:
                diff = run_diff(run.record, self._context.require_run(view.other).record)
            except (RequestError, RecordError) as error:
                notice = str(error)
        try:
            details = run_details(run.record)
        except RecordError as error:
            return PlainTextResponse(f"{run.name} cannot be read: {error}\n", 422)
        rows, fault = _recorded_rows(run.record)
        return html_answer(
            run_page(
                details,
                rows,
                view,
                frame,
                progress=self._context.store.progress().get(run.name),
                diff=diff,
                others=[
                    other.name for other in self._context.store.runs(look=False) if other is not run
                ],
                failure=run.failure,
                log=_log(run),
                notice=notice or fault,
            )
        )

    def figure(self, request: Request) -> Response:
        """Return a chart of the page of a run as PDF."""
        view = read_view(RunView, request.query_params)
        _, at = figure_place(request.query_params)
        rows, _ = _recorded_rows(self._context.require_run(view.run).record)
        return pdf_answer(item_at(run_charts(rows, view), at))

    def json(self, request: Request) -> Response:
        """Return a run as `attnlab runs show --format json` prints it."""
        run = self._context.require_run(read_view(RunView, request.query_params).run)
        return json_answer(run_details(run.record).to_json())

    def rows(self, request: Request) -> Response:
        """Return the rows of a run after the steps that `after` states for each split."""
        run = self._context.require_run(request.query_params.get("run", ""))
        try:
            after = json.loads(request.query_params.get("after", "{}"))
            last_steps = {split: int(after.get(split, -1)) for split in TABLES}
        except (ValueError, TypeError, AttributeError) as error:
            raise RequestError("after: expected the last step of each split as JSON") from error
        rows, _ = _recorded_rows(run.record)
        return json_answer(
            {
                split: _rows_after(columns, last_steps[split])
                for split, columns in rows.columns_by_split.items()
            }
        )


def _recorded_rows(record: Record) -> tuple[RecordedRows, str | None]:
    """Return what a run measured while it trained, and the fault of a table that is damaged."""
    columns_by_split: dict[str, Mapping[str, Any]] = {}
    faults = []
    for split in TABLES:
        try:
            rows = record.rows(split)
        except RecordError as error:
            faults.append(str(error))
            continue
        if rows.num_rows:
            columns_by_split[split] = rows.to_pydict()
    return RecordedRows(columns_by_split), "; ".join(faults) or None


def _rows_after(columns: Mapping[str, Any], last_step: int) -> dict[str, list[Any]]:
    first = sum(step <= last_step for step in columns["step"])
    return {name: _finite(values[first:]) for name, values in columns.items()}


def _finite(values: list[Any]) -> list[Any]:
    """Return values with None for NaN and infinities, which JSON does not have."""
    return [None if isinstance(value, float) and value - value != 0 else value for value in values]


def _log(run: ListedRun) -> str:
    """Return the end of the log of a run's last attempt; nothing where there is none."""
    if run.last_attempt is None:
        return ""
    with suppress(FileNotFoundError, RecordError):
        content = read_plain_file(run.last_attempt.path / "run.log", run.path, MOST_LOG_FILE)
        return content.decode("utf-8", "replace")[-MOST_LOG:]
    return ""
