"""What changes from second to second, what a page says of runs, and the files of the pages."""

import json

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from attnlab.dashboard.answers import json_answer, read_body
from attnlab.dashboard.context import Context
from attnlab.errors import RequestError
from attnlab.figures.figure_page import vega_script
from attnlab.report.frame import ASSETS, describe_progress
from attnlab.run_record.annotations import annotate

CHANGES = ("tag", "untag", "note", "archive", "restore")
"""What a page may say of runs."""
MOST_BODY = 1_000_000
"""The most bytes of a change."""
ASSET_TYPES = {".css": "text/css", ".js": "text/javascript"}


class LiveAnswers:
    """Answers what every page asks beside its own content."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        endpoint = self._context.endpoint
        return [
            Route("/api/live", endpoint(self.live)),
            Route("/assets/{name}", endpoint(self.asset)),
            Route("/annotate", self.annotate, methods=["POST"]),
        ]

    def live(self, _: Request) -> Response:
        """Return what changes from second to second: the runs' states, and how far they are."""
        self._context.store.runs(look=False)
        return json_answer(
            {
                "version": self._context.store.version(),
                "progress": {
                    run: {"progress": progress.step, "text": describe_progress(progress)}
                    for run, progress in self._context.store.progress().items()
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
        body = await read_body(request, MOST_BODY)
        if body is None:
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
        with self._context.lock:
            try:
                runs = [self._context.require_run(name) for name in names]
                for run in runs:
                    annotate(run.path, kind, text if kind in ("tag", "untag", "note") else "")
                self._context.store.runs()
            except RequestError as error:
                return PlainTextResponse(f"{error}\n", 422)
        return Response(status_code=204)
