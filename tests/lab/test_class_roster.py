"""The rows of a class, from a JupyterHub and servers by hand."""

import asyncio
import json

import pytest
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from workbench.lab.class_roster import class_rows

USERS = [
    {"name": "ana", "servers": {"": {"url": "/user/ana/", "ready": True}}},
    {"name": "ben", "servers": {"": {"url": "/user/ben/", "ready": True}}},
    {"name": "eva", "servers": {"": {"url": "/user/eva/", "ready": True}}},
    {"name": "kim", "servers": {"": {"url": "/user/kim/", "ready": False}}},
]
ROSTERS = {"ana": {"runs": [{"status": "running", "step": 7}, {"status": "paused", "step": 3}]}, "ben": {"runs": []}}


class Hub(RequestHandler):
    def get(self, user=None):
        assert self.request.headers["Authorization"] == "token t"
        if user is None:
            self.finish(json.dumps(USERS))
        elif user in ROSTERS:
            self.finish(ROSTERS[user])
        else:
            self.send_error(500)

    def log_exception(self, *args):
        pass

    def log_request(self, *args):
        pass


def test_everybody_with_a_server_has_a_row_and_a_server_that_fails_says_so(monkeypatch):
    async def ask():
        listener, port = bind_unused_port()
        app = Application([("/hub/api/users", Hub), ("/user/(.*)/workbench/api/v1/roster", Hub)])
        server = app.listen(port) if listener.close() is None else None
        monkeypatch.setenv("JUPYTERHUB_API_URL", f"http://127.0.0.1:{port}/hub/api")
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "t")
        try:
            return await class_rows(f"http://127.0.0.1:{port}")
        finally:
            server.stop()

    rows = asyncio.run(ask())
    assert rows[:3] == [
        {"student": "ana", "status": "running", "step": 7},
        {"student": "ana", "status": "paused", "step": 3},
        {"student": "ben", "status": "no run"},
    ]
    assert rows[3]["student"] == "eva" and rows[3]["status"].startswith("no answer: HTTP 500")
    assert len(rows) == 4


def test_a_service_without_its_token_is_an_error(monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    with pytest.raises(KeyError):
        asyncio.run(class_rows("http://127.0.0.1:1"))
