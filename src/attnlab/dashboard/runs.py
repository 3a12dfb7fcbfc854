"""The page of runs, and the runs as JSON."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from attnlab.analysis.run_details import runs_report
from attnlab.analysis.run_list import RunList
from attnlab.dashboard.answers import html_answer, json_answer, read_view
from attnlab.dashboard.context import Context, require_where
from attnlab.errors import RequestError
from attnlab.report.runs_page import RunsView, runs_page


class RunsAnswers:
    """Answers what is asked about the list of runs."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        endpoint = self._context.endpoint
        return [Route("/", endpoint(self.page)), Route("/api/runs", endpoint(self.json))]

    def page(self, request: Request) -> Response:
        """Return the page of runs; conditions that cannot hold leave it empty, and say why."""
        view = read_view(RunsView, request.query_params)
        listed = self._context.listed_runs(archived=view.archived)
        runs, notice = _where(listed, view.where)
        draw = partial(
            runs_page,
            num_all_runs=len(listed),
            view=view,
            progress_by_run=self._context.store.progress(),
        )
        frame = self._context.frame("Runs")
        try:
            return html_answer(draw(runs, served=frame, notice=notice))
        except RequestError as error:
            # The grid was asked for a key or metric that these runs do not have.
            plain_view = RunsView(where=view.where, sort=view.sort, archived=view.archived)
            return html_answer(draw(runs, view=plain_view, served=frame, notice=str(error)))

    def json(self, request: Request) -> Response:
        """Return the runs as `attnlab runs --format json` prints them, without sizes."""
        view = read_view(RunsView, request.query_params)
        listed = self._context.listed_runs(archived=view.archived)
        return json_answer(
            runs_report(require_where(listed, view.where), with_sizes=False).to_json()
        )


def _where(runs: RunList, where: str) -> tuple[RunList, str | None]:
    """Return the runs for which conditions hold; none, and the fault, for wrong conditions."""
    try:
        return require_where(runs, where), None
    except RequestError as error:
        return RunList([]), str(error)
