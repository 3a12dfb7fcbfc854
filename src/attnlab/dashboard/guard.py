"""Who may ask the dashboard for what: its own address, its own pages, and a token for changes."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER, TOKEN_COOKIE, TOKEN_KEY = "x-attnlab-token", "attnlab-token", "token"
SAFE_METHODS = ("GET", "HEAD")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""What a served page may load: nothing but what this server sends. Data URLs of pictures are those
that a chart is saved as."""
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Which requests are answered."""

    hosts: Collection[str]
    """The values of the Host header, with the port; empty for all."""
    needs_token: bool = False
    """Whether reading needs the token too, as it does beyond this machine."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """Needed for every change; new at each start."""

    @classmethod
    def on_loopback(cls, port: int) -> "Access":
        """Return the access of a server that only this machine can reach."""
        return cls(frozenset(f"{host}:{port}" for host in LOOPBACK))

    @classmethod
    def with_token(cls) -> "Access":
        """Return the access of a server that other machines can reach, by whatever name."""
        return cls(frozenset(), needs_token=True)


class Guard:
    """Refuses requests that a page of another site could cause, and those without a token.

    A page elsewhere can let the user's browser send requests to this server. The Host header tells
    them where a name was rebound to this machine, the Origin header where a script or form of that
    page sends them, and none of them knows the token.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No page opens a websocket.
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        answer: ASGIApp
        if refusal := self._refusal(scope["method"], headers):
            answer = PlainTextResponse(f"{refusal}\n", 403)
        elif self._access.needs_token and self._is_token(query.pop(TOKEN_KEY, None)):
            # The browser keeps it, and the address bar and the history do not.
            answer = RedirectResponse(f"{scope['path']}?{urlencode(query)}".rstrip("?"), 303)
            answer.set_cookie(TOKEN_COOKIE, self._access.token, httponly=True, samesite="strict")
        elif self._lacks_token(scope["method"], headers):
            answer = PlainTextResponse("open the address that `attnlab ui` printed\n", 401)
        else:
            answer = self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        """Return why a request is refused whatever token it has; None for one that is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._access.hosts and host not in self._access.hosts:
            return f"this server answers to {', '.join(sorted(self._access.hosts))}"
        if origin is not None and origin != f"http://{host}":
            return "this request comes from another site"
        if method not in SAFE_METHODS and headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            return "this request comes from another site"
        return None

    def _lacks_token(self, method: str, headers: Headers) -> bool:
        """Return whether a request needs a token and has none, or a wrong one."""
        if method not in SAFE_METHODS:
            # A cookie is sent by itself; only a page of this server can read and send the header.
            return not self._is_token(headers.get(TOKEN_HEADER))
        if not self._access.needs_token:
            return False
        cookie = SimpleCookie(headers.get("cookie", "")).get(TOKEN_COOKIE)
        return not self._is_token(cookie.value if cookie else None)

    def _is_token(self, text: str | None) -> bool:
        return text is not None and secrets.compare_digest(
            text.encode(), self._access.token.encode()
        )
