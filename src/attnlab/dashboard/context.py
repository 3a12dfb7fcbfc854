"""What every page of the dashboard needs: the runs, the frame, one request at a time."""

from collections.abc import Awaitable, Callable
from threading import Lock

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from attnlab.analysis.run_list import ListedRun, RunList
from attnlab.dashboard.guard import Access
from attnlab.dashboard.run_store import RunStore
from attnlab.errors import RequestError
from attnlab.report.frame import PageLink, ServedFrame

PAGES = {
    "Runs": "/",
    "Compare": "/compare",
    "Heads": "/heads",
    "Experts": "/experts",
    "Embeddings": "/embeddings",
    "Influence": "/influence",
    "Claims": "/claims",
}
"""The pages that every page leads to, with their addresses."""


class Context:
    """The runs of one store and who may ask for them, for all pages.

    One request is answered at a time: the figures' library is not made for several threads.
    """

    def __init__(self, store: RunStore, access: Access) -> None:
        self.store, self.access = store, access
        self.lock = Lock()

    def endpoint(
        self, answer: Callable[[Request], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers in a thread, one request after the other.

        A RequestError or RecordError becomes its message with status 422.
        """

        def answer_alone(request: Request) -> Response:
            with self.lock:
                try:
                    return answer(request)
                except RequestError as error:
                    return PlainTextResponse(f"{error}\n", 422)

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(answer_alone, request)

        return endpoint

    def frame(self, current: str, figure_address: str = "") -> ServedFrame:
        """Return the frame of a page; `current` is its title in `PAGES`."""
        return ServedFrame(
            token=self.access.token,
            version=self.store.version(),
            place=self.store.place,
            pages=[PageLink(title, path, title == current) for title, path in PAGES.items()],
            figure_address=figure_address,
        )

    def require_run(self, name: str) -> ListedRun:
        """Return the run of a name; raises RequestError where there is none."""
        run = self.store.find(name)
        if run is None:
            self.store.runs()
            run = self.store.find(name)
        if run is None:
            raise RequestError(f"there is no run {name!r}")
        return run

    def listed_runs(self, *, archived: bool) -> RunList:
        """Return the runs, with the archived ones or without."""
        return RunList(r for r in self.store.runs() if archived or not r.annotations.archived)


def require_where(runs: RunList, where: str) -> RunList:
    """Return the runs for which conditions hold; raises RequestError for wrong conditions."""
    return runs.where(where) if where.strip() else runs
