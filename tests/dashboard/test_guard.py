"""Only the user's own browser, on the server's own pages, is answered; changes need the token."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from attnlab.dashboard.guard import TOKEN_COOKIE, TOKEN_HEADER, Access, Guard

PORT = 8750
OWN = f"http://127.0.0.1:{PORT}"


def client(access, base_url=OWN):
    async def answer(_):
        return PlainTextResponse("answered")

    app = Starlette(routes=[Route("/page", answer, methods=["GET", "POST"])])
    return TestClient(Guard(app, access), base_url=base_url, follow_redirects=False)


@pytest.fixture
def access():
    return Access.on_loopback(PORT)


def test_reading_on_loopback_needs_no_token_and_a_change_needs_it(access):
    browser = client(access)
    assert browser.get("/page").text == "answered"
    assert browser.post("/page").status_code == 401
    assert browser.post("/page", headers={TOKEN_HEADER: "wrong"}).status_code == 401
    assert browser.post("/page", headers={TOKEN_HEADER: access.token}).text == "answered"


def test_a_cookie_alone_changes_nothing(access):
    browser = client(access)
    browser.cookies.set(TOKEN_COOKIE, access.token)
    assert browser.post("/page").status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_the_names_of_this_machine_are_answered(access, host):
    assert client(access, f"http://{host}:{PORT}").get("/page").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(access, host):
    response = client(access).get("/page", headers={"host": host})
    assert response.status_code == 403
    assert "answered" not in response.text


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}"])
def test_another_origin_is_refused_even_with_the_token(access, method, origin):
    headers = {"origin": origin, TOKEN_HEADER: access.token}
    assert getattr(client(access), method)("/page", headers=headers).status_code == 403


def test_a_change_that_another_site_causes_is_refused(access):
    headers = {"sec-fetch-site": "cross-site", TOKEN_HEADER: access.token}
    assert client(access).post("/page", headers=headers).status_code == 403


def test_beyond_loopback_everything_needs_the_token(access):
    access = Access.with_token()
    browser = client(access, "http://machine.example:8750")
    assert browser.get("/page").status_code == 401
    assert browser.get("/page", params={"token": "wrong"}).status_code == 401
    opened = browser.get("/page", params={"token": access.token, "where": "seed=0 lr>1"})
    assert opened.status_code == 303
    assert opened.headers["location"] == "/page?where=seed%3D0+lr%3E1"
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert browser.get("/page").text == "answered"
    assert browser.post("/page").status_code == 401


def test_each_start_has_a_token_of_its_own_and_does_not_print_it():
    first, second = Access.on_loopback(PORT), Access.on_loopback(PORT)
    assert first.token != second.token
    assert len(first.token) >= 32
    assert first.token not in repr(first)


def test_every_answer_states_the_policy(access):
    for response in (
        client(access).get("/page"),
        client(access).get("/missing"),
        client(access).get("/page", headers={"host": "evil.example"}),
    ):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


def test_a_websocket_is_closed(access):
    with pytest.raises(WebSocketDisconnect), client(access).websocket_connect("/page"):
        pass
