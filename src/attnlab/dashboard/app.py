"""The dashboard: pages and JSON from the records of runs, and tags and notes through one writer."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from attnlab.analysis.arms import label_keys
from attnlab.analysis.compare import Comparison, comparison
from attnlab.analysis.run_details import run_details, run_diff, runs_report
from attnlab.analysis.run_list import ListedRun, RunList
from attnlab.analysis.select import drop_damaged
from attnlab.dashboard.guard import Access, Guard
from attnlab.dashboard.run_store import RunStore
from attnlab.errors import RecordError, RequestError
from attnlab.figures.base import render_pdf
from attnlab.figures.figure_page import vega_script
from attnlab.report.compare_page import CompareView, compare_page, comparison_charts
from attnlab.report.frame import ASSETS, PageLink, ServedFrame, describe_progress
from attnlab.report.run_page import RecordedRows, RunView, run_charts, run_page
from attnlab.report.runs_page import RunsView, runs_page
from attnlab.run_record.annotations import annotate
from attnlab.run_record.read import read_plain_file
from attnlab.run_record.record import Record

PAGES = {"Runs": "/", "Compare": "/compare"}
CHANGES = ("tag", "untag", "note", "archive", "restore")
"""What a page may say of runs."""
MOST_BODY = 1_000_000
MOST_LOG, MOST_LOG_FILE = 20_000, 2**24
"""The most characters of a log that a page shows, and the most bytes of one that is read."""
TABLES = ("train", "validation", "test")
ASSET_TYPES = {".css": "text/css", ".js": "text/javascript"}
View = TypeVar("View", RunsView, CompareView, RunView)


class Dashboard:
    """Answers the requests for the runs of one store.

    One request is answered at a time: the figures' library is not made for several threads.
    """

    def __init__(self, store: RunStore, access: Access) -> None:
        self._store, self._access = store, access
        self._lock = Lock()

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        return [
            Route("/", self._answer(self.runs_page)),
            Route("/compare", self._answer(self.compare_page)),
            Route("/run", self._answer(self.run_page)),
            Route("/compare/figure.pdf", self._answer(self.compare_figure)),
            Route("/run/figure.pdf", self._answer(self.run_figure)),
            Route("/api/runs", self._answer(self.runs_json)),
            Route("/api/compare", self._answer(self.compare_json)),
            Route("/api/run", self._answer(self.run_json)),
            Route("/api/rows", self._answer(self.rows_json)),
            Route("/api/live", self._answer(self.live_json)),
            Route("/assets/{name}", self._answer(self.asset)),
            Route("/annotate", self.annotate, methods=["POST"]),
        ]

    def runs_page(self, request: Request) -> Response:
        """Return the page of runs; conditions that cannot hold leave it empty, and say why."""
        view = read_view(RunsView, request.query_params)
        all_runs = self._store.runs()
        listed = RunList(r for r in all_runs if view.archived or not r.annotations.archived)
        runs, notice = _where(listed, view.where)
        draw = partial(
            runs_page, num_all_runs=len(listed), view=view, progress_by_run=self._store.progress()
        )
        frame = self._frame("Runs")
        try:
            return _html(draw(runs, served=frame, notice=notice))
        except RequestError as error:
            # The grid was asked for a key or metric that these runs do not have.
            plain_view = RunsView(where=view.where, sort=view.sort, archived=view.archived)
            return _html(draw(runs, view=plain_view, served=frame, notice=str(error)))

    def compare_page(self, request: Request) -> Response:
        """Return the page that compares runs, with the reason where they cannot be compared."""
        view = read_view(CompareView, request.query_params)
        report, records, keys, notice = self._compare(view)
        frame = self._frame("Compare", view.address("/compare/figure.pdf"))
        try:
            return _html(compare_page(report, records, view, keys, frame, notice))
        except RequestError as error:
            return _html(compare_page(None, records, view, keys, frame, str(error)))

    def compare_figure(self, request: Request) -> Response:
        """Return a chart of the page that compares runs as PDF."""
        view = read_view(CompareView, request.query_params)
        section, at = _figure_place(request.query_params)
        report, records, _, notice = self._compare(view)
        if report is None:
            raise RequestError(notice or "nothing to compare")
        groups = comparison_charts(_at(report.panels, section), records, view)
        return _pdf(_at([chart for group in groups for chart in group.charts], at))

    def run_page(self, request: Request) -> Response:
        """Return the page of a run; a damaged one says what is wrong with it."""
        view = read_view(RunView, request.query_params)
        run = self._require_run(view.run)
        frame = self._frame("", view.address("/run/figure.pdf"))
        notice, diff = run.fault, None
        if view.other:
            try:
                diff = run_diff(run.record, self._require_run(view.other).record)
            except (RequestError, RecordError) as error:
                notice = str(error)
        try:
            details = run_details(run.record)
        except RecordError as error:
            return PlainTextResponse(f"{run.name} cannot be read: {error}\n", 422)
        rows, fault = _recorded_rows(run.record)
        return _html(
            run_page(
                details,
                rows,
                view,
                frame,
                progress=self._store.progress().get(run.name),
                diff=diff,
                others=[other.name for other in self._store.runs(look=False) if other is not run],
                failure=run.failure,
                log=_log(run),
                notice=notice or fault,
            )
        )

    def run_figure(self, request: Request) -> Response:
        """Return a chart of the page of a run as PDF."""
        run = self._require_run(read_view(RunView, request.query_params).run)
        _, at = _figure_place(request.query_params)
        rows, _ = _recorded_rows(run.record)
        return _pdf(_at(run_charts(rows), at))

    def runs_json(self, request: Request) -> Response:
        """Return the runs as `attnlab runs --format json` prints them, without sizes."""
        view = read_view(RunsView, request.query_params)
        all_runs = self._store.runs()
        listed = RunList(r for r in all_runs if view.archived or not r.annotations.archived)
        return _json(runs_report(_require_where(listed, view.where), with_sizes=False).to_json())

    def compare_json(self, request: Request) -> Response:
        """Return the comparison as `attnlab compare --format json` prints it."""
        report, _, _, notice = self._compare(read_view(CompareView, request.query_params))
        if report is None:
            raise RequestError(notice or "nothing to compare")
        return _json(report.to_json())

    def run_json(self, request: Request) -> Response:
        """Return a run as `attnlab runs show --format json` prints it."""
        run = self._require_run(read_view(RunView, request.query_params).run)
        return _json(run_details(run.record).to_json())

    def rows_json(self, request: Request) -> Response:
        """Return the rows of a run after the steps that `after` states for each split."""
        run = self._require_run(request.query_params.get("run", ""))
        try:
            after = json.loads(request.query_params.get("after", "{}"))
            last_steps = {split: int(after.get(split, -1)) for split in TABLES}
        except (ValueError, TypeError, AttributeError) as error:
            raise RequestError("after: expected the last step of each split as JSON") from error
        rows, _ = _recorded_rows(run.record)
        return _json(
            {
                split: _rows_after(columns, last_steps[split])
                for split, columns in rows.columns_by_split.items()
            }
        )

    def live_json(self, _: Request) -> Response:
        """Return what changes from second to second: the runs' states, and how far they are."""
        self._store.runs(look=False)
        return _json(
            {
                "version": self._store.version(),
                "progress": {
                    run: {"progress": progress.step, "text": describe_progress(progress)}
                    for run, progress in self._store.progress().items()
                },
            }
        )

    def asset(self, request: Request) -> Response:
        """Return a script or style of the pages."""
        name = request.path_params["name"]
        headers = {"cache-control": "no-cache"}
        if name == "vega.js":
            return Response(vega_script(), media_type=ASSET_TYPES[".js"], headers=headers)
        asset_by_name = {path.name: path for path in ASSETS.iterdir() if path.suffix in ASSET_TYPES}
        if name not in asset_by_name:
            return PlainTextResponse("there is no such file\n", 404)
        path = asset_by_name[name]
        return Response(path.read_bytes(), media_type=ASSET_TYPES[path.suffix], headers=headers)

    async def annotate(self, request: Request) -> Response:
        """Write a tag, a note or a state of the archive for some runs, as the commands do."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY:
                return PlainTextResponse("too long\n", 413)
        return await run_in_threadpool(self._annotate, body)

    def _annotate(self, body: bytes) -> Response:
        try:
            change = json.loads(body)
            kind, text, names = change["kind"], change["text"], change["runs"]
        except (ValueError, TypeError, KeyError):
            return PlainTextResponse("expected kind, text and runs as JSON\n", 400)
        are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if kind not in CHANGES or not isinstance(text, str) or not are_names:
            return PlainTextResponse(
                f"expected one of {', '.join(CHANGES)}, a text and runs\n", 400
            )
        if not names:
            return PlainTextResponse(f"{kind}: choose runs first\n", 422)
        with self._lock:
            try:
                runs = [self._require_run(name) for name in names]
                for run in runs:
                    annotate(run.path, kind, text if kind in ("tag", "untag", "note") else "")
            except (RequestError, RecordError) as error:
                return PlainTextResponse(f"{error}\n", 422)
        return Response(status_code=204)

    def _answer(
        self, answer: Callable[[Request], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers in a thread, one request after the other."""

        def answer_alone(request: Request) -> Response:
            with self._lock:
                try:
                    return answer(request)
                except RequestError as error:
                    return PlainTextResponse(f"{error}\n", 422)
                except RecordError as error:
                    return PlainTextResponse(f"{error}\n", 422)

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(answer_alone, request)

        return endpoint

    def _frame(self, current: str, figure_address: str = "") -> ServedFrame:
        return ServedFrame(
            token=self._access.token,
            version=self._store.version(),
            place=self._store.place,
            pages=[PageLink(title, path, title == current) for title, path in PAGES.items()],
            figure_address=figure_address,
        )

    def _require_run(self, name: str) -> ListedRun:
        run = self._store.find(name)
        if run is None:
            self._store.runs()
            run = self._store.find(name)
        if run is None:
            raise RequestError(f"there is no run {name!r}")
        return run

    def _compare(
        self, view: CompareView
    ) -> tuple[Comparison | None, Mapping[str, Record], list[str], str | None]:
        """Return a comparison, its records, the keys that differ, and why there is none."""
        runs = RunList(run for run in self._store.runs() if not run.annotations.archived)
        if view.run:
            runs = RunList(run for run in runs if {run.name, str(run.path)} & {*view.run})
        keys: list[str] = []
        records: Mapping[str, Record] = {}
        try:
            runs = _require_where(runs, view.where)
            selection = drop_damaged(runs.selection)
            records = selection.records
            configs = [
                {key: value for key, value in run.config.items() if key != "seed"}
                for run in runs.finished
            ]
            keys = label_keys(configs)
            by = None if not view.by or set(view.by) == set(keys) else list(view.by)
            report = comparison(
                selection,
                by=by,
                metric=view.metric or None,
                baseline=view.baseline or None,
                allow=view.allow,
            )
        except RequestError as error:
            return None, records, keys, str(error)
        return report, records, keys, None


def build_app(store: RunStore, access: Access) -> ASGIApp:
    """Build the application that answers requests for the runs of a store."""
    return Guard(Starlette(routes=Dashboard(store, access).routes), access)


def read_view(kind: type[View], query: QueryParams) -> View:
    """Return a view from the query of an address; what it does not state is the default.

    Raises RequestError for a number that is none.
    """
    values: dict[str, Any] = {}
    for view_field in fields(kind):
        texts = query.getlist(view_field.name)
        if not texts:
            continue
        default = view_field.default
        if isinstance(default, tuple):
            values[view_field.name] = tuple(texts)
        elif isinstance(default, bool):
            values[view_field.name] = texts[-1] not in ("", "0")
        elif isinstance(default, int):
            if not texts[-1].isdecimal() or len(texts[-1]) > 9:
                raise RequestError(f"{view_field.name}={texts[-1][:20]!r}: expected a number")
            values[view_field.name] = int(texts[-1])
        else:
            values[view_field.name] = texts[-1]
    return kind(**values)


def _where(runs: RunList, where: str) -> tuple[RunList, str | None]:
    """Return the runs for which conditions hold; none, and the fault, for wrong conditions."""
    try:
        return _require_where(runs, where), None
    except RequestError as error:
        return RunList([]), str(error)


def _require_where(runs: RunList, where: str) -> RunList:
    return runs.where(where) if where.strip() else runs


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


def _figure_place(query: QueryParams) -> tuple[int, int]:
    section, _, chart = query.get("figure", "0.0").partition(".")
    if not (section.isdecimal() and chart.isdecimal()):
        raise RequestError("figure: expected SECTION.CHART")
    return int(section), int(chart)


def _at(items: Any, place: int) -> Any:
    if place >= len(items):
        raise RequestError("there is no such figure; load the page again")
    return items[place]


def _html(text: str) -> Response:
    # A surrogate, which a file name may have, is no UTF-8.
    return Response(text.encode("utf-8", "replace"), media_type="text/html; charset=utf-8")


def _json(value: Any) -> Response:
    return JSONResponse(value)


def _pdf(chart: Any) -> Response:
    content = render_pdf(chart.properties(width=560))
    return Response(
        content,
        media_type="application/pdf",
        headers={"content-disposition": 'attachment; filename="figure.pdf"'},
    )
