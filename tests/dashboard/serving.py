"""A dashboard that is served to a browser of a test, and what the browser must not do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn

from attnlab.dashboard.app import build_app
from attnlab.dashboard.guard import Access
from attnlab.dashboard.run_store import RunStore
from attnlab.dashboard.server import LOOPBACK_HOST, listen


@contextmanager
def served(runs_dir: Path) -> Iterator[str]:
    """Serve the dashboard of some runs, and give its address."""
    listener = listen(LOOPBACK_HOST, 0)
    port = listener.getsockname()[1]
    app = build_app(RunStore((), runs_dir), Access.on_loopback(port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK_HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def elsewhere(url: str, address: str) -> list[str]:
    """Return a request's address in a list where it leaves the server; an empty list else."""
    return [] if url.startswith((address, "data:", "blob:")) else [url]
