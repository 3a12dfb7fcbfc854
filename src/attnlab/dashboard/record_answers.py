"""What the pages of records answer alike: the page, its figures, and its report as JSON."""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from attnlab.analysis.run_list import RunList, Selection
from attnlab.analysis.select import drop_damaged, select_record
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
from attnlab.report.record_page import RecordPage
from attnlab.report.view import PageView

View = TypeVar("View", bound=PageView)


class RecordAnswers(ABC, Generic[View]):
    """Answers what is asked about one page of what records have."""

    title: ClassVar[str]
    """Its title in the list of pages."""
    path: ClassVar[str]

    def __init__(self, context: Context) -> None:
        self.context = context

    @abstractmethod
    def view_type(self) -> type[View]:
        """Return the type of the page's view."""

    @abstractmethod
    def content(self, view: View) -> RecordPage:
        """Return what the page shows. Raises RequestError where it can show nothing."""

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        endpoint = self.context.endpoint
        return [
            Route(self.path, endpoint(self.page)),
            Route(f"{self.path}/figure.pdf", endpoint(self.figure)),
            Route(f"/api{self.path}", endpoint(self.json)),
        ]

    def page(self, request: Request) -> Response:
        """Return the page; where it cannot show what is asked for, it says why, with status 422."""
        view = read_view(self.view_type(), request.query_params)
        try:
            page = self.content(view)
        except RequestError as error:
            page = RecordPage(self.title, notice=str(error))
        frame = self.context.frame(self.title, view.address(f"{self.path}/figure.pdf"))
        return html_answer(page.render(view, frame), 422 if page.notice else 200)

    def figure(self, request: Request) -> Response:
        """Return a chart of the page as PDF."""
        section, at = figure_place(request.query_params)
        page = self.content(read_view(self.view_type(), request.query_params))
        return pdf_answer(item_at(item_at(page.sections, section).charts, at))

    def json(self, request: Request) -> Response:
        """Return the report that the page shows."""
        page = self.content(read_view(self.view_type(), request.query_params))
        if page.notice or page.report is None:
            raise RequestError(page.notice or "there is nothing to show")
        return json_answer(page.report.to_json())

    def runs(self, where: str, names: tuple[str, ...]) -> RunList:
        """Return the runs that a view names, without archived ones it does not name.

        Raises RequestError for a name that no run has, and for wrong conditions.
        """
        if not names:
            return require_where(self.context.listed_runs(archived=False), where)
        self.context.store.runs()
        return require_where(RunList(self.context.require_run(name) for name in names), where)


def readable_selection(runs: RunList) -> Selection:
    """Return the finished runs that can be read; a single run may be unfinished.

    Raises RequestError where none can be used.
    """
    if len(runs) != 1 or runs[0].result is not None:
        return drop_damaged(runs.selection)
    if runs[0].state == "damaged":
        raise RequestError(f"{runs[0].name} cannot be read: {runs[0].fault}")
    return select_record(runs[0].record)
