"""Serve the dashboard until somebody stops it."""

import socket
from contextlib import suppress

import uvicorn

from attnlab.dashboard.app import build_app
from attnlab.dashboard.guard import Access
from attnlab.dashboard.run_store import RunStore
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.printable import say

LOOPBACK_HOST = "127.0.0.1"
FIRST_PORT, NUM_PORTS = 8750, 20
"""Where a dashboard is, and how many ports are tried while others have it."""


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port; without one on the first free one from `FIRST_PORT`.

    Raises RequestError where the port is taken, or the host is none of this machine.
    """
    ports = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if port is None else [port]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    fault = ""
    for candidate in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
        except socket.gaierror as error:
            listener.close()
            raise RequestError(
                f"--host {host}: {error.strerror}; expected an address of this machine"
            ) from error
        except OSError as error:
            listener.close()
            fault = f"--host {host} --port {candidate}: {error.strerror}"
            continue
        return listener
    raise RequestError(f"{fault}; choose another with --port, or any free one with --port 0")


def serve(store: RunStore, host: str, port: int | None) -> None:
    """Answer requests until the process is interrupted; the first line says where."""
    listener = listen(host, port)
    chosen_port: int = listener.getsockname()[1]
    is_local = host in (LOOPBACK_HOST, "localhost", "::1")
    access = Access.on_loopback(chosen_port) if is_local else Access.with_token()
    shown_host = f"[{host}]" if ":" in host else host
    address = f"http://{shown_host}:{chosen_port}/"
    say(address if is_local else f"{address}?token={access.token}")
    if not is_local:
        say("whoever has this address can read these runs; it is not encrypted")
    config = uvicorn.Config(
        build_app(store, access), log_level="warning", lifespan="off", timeout_graceful_shutdown=1
    )
    with suppress(Interrupted, KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
