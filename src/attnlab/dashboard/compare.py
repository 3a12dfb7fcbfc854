"""The page that compares runs, its figures, and the comparison as JSON."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from attnlab.analysis.arms import label_keys
from attnlab.analysis.compare import Comparison, comparison
from attnlab.analysis.run_list import RunList
from attnlab.dashboard.answers import (
    figure_place,
    html_answer,
    item_at,
    json_answer,
    pdf_answer,
    read_view,
)
from attnlab.dashboard.context import Context, require_where
from attnlab.errors import RequestError
from attnlab.report.compare_page import (
    CompareView,
    NotCompared,
    OtherRuns,
    compare_page,
    comparison_charts,
)
from attnlab.report.frame import describe_progress
from attnlab.report.runs_page import shorten
from attnlab.run_record.record import Record

MOST_PAGES = 8
"""The number of pages that are kept for who asks again while no run has changed."""


class CompareAnswers:
    """Answers what is asked about a comparison."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pages: dict[tuple[CompareView, str, object], str] = {}

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        endpoint = self._context.endpoint
        return [
            Route("/compare", endpoint(self.page)),
            Route("/compare/figure.pdf", endpoint(self.figure)),
            Route("/api/compare", endpoint(self.json)),
        ]

    def page(self, request: Request) -> Response:
        """Return the page that compares runs, with the reason where they cannot be compared."""
        view = read_view(CompareView, request.query_params)
        self._context.store.runs()
        written = () if view.unfinished else self._context.store.written()
        key = (view, self._context.store.version(), written)
        if key not in self._pages:
            # Vega's specification of a thousand runs takes a second, and reloading is common.
            for old_key in list(self._pages)[: 1 - MOST_PAGES]:
                del self._pages[old_key]
            self._pages[key] = self._draw_page(view)
        return html_answer(self._pages[key])

    def _draw_page(self, view: CompareView) -> str:
        runs, fault = self._selected(view)
        report, records, keys, notice = self._compare(runs, view)
        others = self._others(runs, report)
        frame = self._context.frame("Compare", view.address("/compare/figure.pdf"))
        try:
            return compare_page(report, records, view, keys, frame, fault or notice, others)
        except RequestError as error:
            return compare_page(None, records, view, keys, frame, str(error), others)

    def figure(self, request: Request) -> Response:
        """Return a chart of the page that compares runs as PDF."""
        view = read_view(CompareView, request.query_params)
        section, at = figure_place(request.query_params)
        runs, report, records = self._require_comparison(view)
        groups = comparison_charts(
            item_at(report.panels, section), records, view, self._others(runs, report).unfinished
        )
        return pdf_answer(item_at([chart for group in groups for chart in group.charts], at))

    def json(self, request: Request) -> Response:
        """Return the comparison as `attnlab compare --format json` prints it."""
        _, report, _ = self._require_comparison(read_view(CompareView, request.query_params))
        return json_answer(report.to_json())

    def _require_comparison(
        self, view: CompareView
    ) -> tuple[RunList, Comparison, Mapping[str, Record]]:
        """Return the runs of a view, their comparison and its records.

        Raises RequestError where there is none.
        """
        runs, fault = self._selected(view)
        report, records, _, notice = self._compare(runs, view)
        if report is None:
            raise RequestError(fault or notice or "nothing to compare")
        return runs, report, records

    def _selected(self, view: CompareView) -> tuple[RunList, str | None]:
        """Return the runs that a view selects; none, and the fault, for wrong conditions."""
        runs = self._context.listed_runs(archived=False)
        if view.run:
            runs = RunList(run for run in runs if {run.name, str(run.path)} & {*view.run})
        try:
            return require_where(runs, view.where), None
        except RequestError as error:
            return RunList([]), str(error)

    def _compare(
        self, runs: RunList, view: CompareView
    ) -> tuple[Comparison | None, Mapping[str, Record], list[str], str | None]:
        """Return a comparison, its records, the keys that differ, and why there is none."""
        keys: list[str] = []
        records: Mapping[str, Record] = {}
        try:
            selection = self._context.store.previewed(runs.selection)
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

    def _others(self, runs: RunList, report: Comparison | None) -> OtherRuns:
        """Return the runs that a report does not compare, and why; without a report, all."""
        panels, left_out = (report.panels, report.left_out) if report else ([], [])
        compared = {run.name for panel in panels for group in panel.groups for run in group.runs}
        reason_by_name = {run.run: run.reason for run in left_out if run.reason}
        unfinished, fault_by_path = self._context.store.unfinished(runs)
        progress_by_name = self._context.store.progress()
        finished_names, others = set[str](), []
        for run in runs:
            # The second run of a name is compared by its path.
            name = str(run.path) if run.name in finished_names else run.name
            if run.result is not None:
                finished_names.add(name)
                if name in compared:
                    continue
            reason = fault_by_path.get(run.path) or reason_by_name.get(name) or run.failure
            if not reason and run.name in progress_by_name:
                reason = describe_progress(progress_by_name[run.name])
            others.append(NotCompared(run.name, run.state, shorten(reason or "")))
        return OtherRuns(others, unfinished)
