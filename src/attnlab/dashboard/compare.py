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
from attnlab.report.compare_page import CompareView, compare_page, comparison_charts
from attnlab.run_record.record import Record

MOST_PAGES = 8
"""The number of pages that are kept for who asks again while no run has changed."""


class CompareAnswers:
    """Answers what is asked about a comparison."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pages: dict[tuple[CompareView, str], str] = {}

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
        key = (view, self._context.store.version())
        if key not in self._pages:
            # Vega's specification of a thousand runs takes a second, and reloading is common.
            for old_key in list(self._pages)[: 1 - MOST_PAGES]:
                del self._pages[old_key]
            self._pages[key] = self._draw_page(view)
        return html_answer(self._pages[key])

    def _draw_page(self, view: CompareView) -> str:
        report, records, keys, notice = self._compare(view)
        frame = self._context.frame("Compare", view.address("/compare/figure.pdf"))
        try:
            return compare_page(report, records, view, keys, frame, notice)
        except RequestError as error:
            return compare_page(None, records, view, keys, frame, str(error))

    def figure(self, request: Request) -> Response:
        """Return a chart of the page that compares runs as PDF."""
        view = read_view(CompareView, request.query_params)
        section, at = figure_place(request.query_params)
        report, records, _, notice = self._compare(view)
        if report is None:
            raise RequestError(notice or "nothing to compare")
        groups = comparison_charts(item_at(report.panels, section), records, view)
        return pdf_answer(item_at([chart for group in groups for chart in group.charts], at))

    def json(self, request: Request) -> Response:
        """Return the comparison as `attnlab compare --format json` prints it."""
        report, _, _, notice = self._compare(read_view(CompareView, request.query_params))
        if report is None:
            raise RequestError(notice or "nothing to compare")
        return json_answer(report.to_json())

    def _compare(
        self, view: CompareView
    ) -> tuple[Comparison | None, Mapping[str, Record], list[str], str | None]:
        """Return a comparison, its records, the keys that differ, and why there is none."""
        runs = self._context.listed_runs(archived=False)
        if view.run:
            runs = RunList(run for run in runs if {run.name, str(run.path)} & {*view.run})
        keys: list[str] = []
        records: Mapping[str, Record] = {}
        try:
            runs = require_where(runs, view.where)
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
