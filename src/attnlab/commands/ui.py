"""`attnlab ui`: the runs in a browser, while they train and afterwards."""

from argparse import ArgumentParser, Namespace

from attnlab.commands.options import add_runs_dir
from attnlab.errors import RequestError

HIGHEST_PORT = 65535


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab ui`."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="directories of runs, names, starts or patterns of names, sweeps; default: all",
    )
    add_runs_dir(parser)
    parser.add_argument("--port", type=int, help="default: the first free one from 8750")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen; default: this machine alone. Beyond it, a token is needed",
    )


def run(arguments: Namespace) -> int:
    """Serve until interrupted; the address is the first line."""
    if arguments.port is not None and not 0 <= arguments.port <= HIGHEST_PORT:
        raise RequestError(f"--port {arguments.port}: expected 0 to {HIGHEST_PORT}")
    # The server takes a while to load, so a wrong request is refused before.
    from attnlab.dashboard.run_store import RunStore
    from attnlab.dashboard.server import serve

    store = RunStore(arguments.runs, arguments.runs_dir)
    if arguments.runs:
        store.runs()
    serve(store, arguments.host, arguments.port)
    return 0
