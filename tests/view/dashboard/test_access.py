"""Who opens a page, asked the way Bokeh asks; whole requests are in test_server.py."""

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import Application, RequestHandler

from workbench.hub.access import Access, token_bases
from workbench.view.dashboard.access import SocketHandler, StayHome, TokenAuth

TOKEN = "a-token-of-tests"


class Wire:
    """The part of a connection that a request and its handler ask."""

    context = None

    def set_close_callback(self, callback):
        pass


def asked(uri="/", **headers):
    """What Bokeh hands over: a handler with a request."""
    fields = HTTPHeaders({"Host": "127.0.0.1:5000", **headers})
    start = RequestStartLine("GET", uri, "HTTP/1.1")
    return RequestHandler(Application(), HTTPServerRequest(start_line=start, headers=fields, connection=Wire()))


@pytest.fixture
def access():
    return Access({TOKEN: "ana"})


@pytest.fixture
def auth(access):
    return TokenAuth(token_bases(access)[0])


def test_a_cookie_of_this_port_is_the_person(auth, access):
    cookie = f"workbench-5000={access.open_session('ana')}"
    assert auth.get_user(asked(Cookie=cookie)) == "ana"
    assert auth.get_user(asked(Cookie=cookie.replace("5000", "5001"))) is None
    assert auth.get_user(asked(Cookie=cookie, Host="evil.example")) is None
    assert auth.get_user(asked()) is None


def test_a_header_is_the_person_and_a_token_in_the_address_is_exchanged_first(auth):
    assert auth.get_user(asked(Authorization=f"token {TOKEN}")) == "ana"
    assert auth.get_user(asked(f"/?token={TOKEN}")) is None
    assert auth.get_login_url(asked(f"/?token={TOKEN}")) == f"/workbench/login?token={TOKEN}&next=%2F"
    assert auth.get_login_url(asked(f"/app?token={TOKEN}")) == f"/workbench/login?token={TOKEN}&next=%2Fapp%2F"
    assert auth.get_login_url(asked("/?token=another")) == "/workbench/welcome"
    assert auth.get_login_url(asked()) == "/workbench/welcome"


def test_on_a_socket_of_its_own_everybody_is_the_owner_whatever_the_address_says(access):
    local = type("Local", (SocketHandler,), {"access": Access({TOKEN: "ana"}, hosts=None), "owner": "ana"})
    auth = TokenAuth(local)
    assert auth.get_user(asked()) == "ana"
    assert auth.get_user(asked("/?token=of-jupyter", Host="hub.example")) == "ana"


def test_the_policy_is_on_the_first_part_of_an_answer():
    headers = HTTPHeaders()
    status, headers, chunk = StayHome(asked().request).transform_first_chunk(404, headers, b"text", True)
    assert (status, chunk) == (404, b"text")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["connect-src"] == "'self' blob:"
    assert policy["frame-ancestors"] == "'self'"
    assert not any("*" in sources or "//" in sources for sources in policy.values())
    assert headers["Referrer-Policy"] == "no-referrer"
