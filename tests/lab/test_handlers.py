"""The hub in a real Jupyter server: its log-in guards every route, under a base URL and with cookies."""

import json
import os
import subprocess
import sys
import time
import warnings

import psutil
import pytest
from jupyter_server.serverapp import ServerWebApplication
from jupyter_server.utils import url_path_join
from tornado.web import RequestHandler

from workbench import lab
from workbench.hub.handlers import routes
from workbench.hub.hub import Hub
from workbench.lab.handlers import LabHandler, LabSocket

TOKEN = "a-token-of-this-test"
OWNER = "--Workbench.owner=ana"
EVIL = "https://evil.example"


def pause(number):
    return {"id": f"c-{number}", "op": "pause", "args": {}}


@pytest.fixture(scope="module")
def server(jupyter):
    return jupyter(OWNER, "--Workbench.instructors=ana")


@pytest.mark.slow
def test_the_eight_rows_of_security(server):
    commands, stream = f"/runs/{server.run}/commands", f"/runs/{server.run}/stream"
    opener, cookies = server.log_in()
    cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    xsrf = {"X-XSRFToken": cookies["_xsrf"]}
    rows = {
        "POST with token": server.ask(commands, body=pause(1), token=TOKEN)[0],
        "POST without credentials": server.ask(commands, body=pause(2))[0],
        "POST with cookie, without XSRF header": server.ask(commands, body=pause(3), opener=opener)[0],
        "POST with cookie and XSRF header": server.ask(commands, body=pause(4), opener=opener, headers=xsrf)[0],
        "POST of an unknown command": server.ask(commands, body={"id": "a", "op": "exec"}, token=TOKEN)[0],
        "socket without credentials": server.socket_status(stream, {}),
        "socket with a wrong token": server.socket_status(stream, {"Authorization": "token wrong"}),
        "socket with cookie from another origin": server.socket_status(stream, {**cookie, "Origin": EVIL}),
        "socket with cookie from our own origin": server.socket_status(stream, {**cookie, "Origin": server.root}),
    }
    assert list(rows.values()) == [202, 403, 403, 202, 422, 403, 403, 403, 101], rows


@pytest.mark.slow
def test_a_cookie_from_another_origin_changes_nothing_even_with_the_header(server):
    opener, cookies = server.log_in()
    headers = {"X-XSRFToken": cookies["_xsrf"], "Origin": EVIL}
    assert server.ask(f"/runs/{server.run}/commands", body=pause(5), opener=opener, headers=headers)[0] in (403, 404)


@pytest.mark.slow
def test_no_route_answers_without_a_log_in(server):
    run = f"/runs/{server.run}"
    for path in ("/health", "/runs", "/presets", "/roster", run, f"{run}/snapshot", f"{run}/trace"):
        assert server.ask(path)[0] == 403, path
    for path in ("/runs", "/broadcast", f"{run}/commands"):
        assert server.ask(path, body={})[0] == 403, path
    for path in ("/runs/stream", f"{run}/stream", f"{run}/stream?token=wrong"):
        assert server.socket_status(path, {}) == 403, path


@pytest.mark.slow
def test_bad_input_is_refused_as_on_any_server(server):
    commands = f"/runs/{server.run}/commands"
    for body, code in (
        (b"{", 400),
        (b"[]", 400),
        (b" " * 70_000, 413),
        ({"id": "a", "op": "step", "args": {"count": 0}}, 422),
        ({"id": "a", "op": "set_cache_size", "args": {"slots": 4}}, 409),
    ):
        found, answer = server.ask(commands, body=body, token=TOKEN)
        assert (found, answer.get("status", "refused")) == (code, "refused")
    first = server.ask(commands, body={"id": "same", "op": "pause"}, token=TOKEN)
    assert server.ask(commands, body={"id": "same", "op": "pause"}, token=TOKEN) == first
    for run in ("..", "0" * 32, "%2e%2e%2fx", "a" * 3000):
        assert server.ask(f"/runs/{run}", token=TOKEN)[0] == 404
        assert server.socket_status(f"/runs/{run}/stream", {"Authorization": f"token {TOKEN}"}) == 404


@pytest.mark.slow
def test_everybody_who_logs_in_to_a_personal_server_is_its_owner(server):
    opener, cookies = server.log_in()
    xsrf = {"X-XSRFToken": cookies["_xsrf"]}
    assert server.ask(f"/runs/{server.run}", opener=opener)[1]["role"] == "owner"
    assert server.ask(f"/runs/{server.run}/commands", body=pause("t"), token=TOKEN)[0] == 202
    assert server.ask(f"/runs/{server.run}/commands", body=pause("o"), opener=opener, headers=xsrf)[0] == 202
    assert server.ask(f"/runs/{server.run}", token=TOKEN)[1]["driver"] == "ana"
    assert server.ask("/roster", token=TOKEN)[0] == 200


@pytest.mark.slow
def test_a_server_that_lets_nobody_in_unasked_starts_without_a_warning(jupyter):
    server = jupyter("--ServerApp.allow_unauthenticated_access=False", "--Workbench.starts_runs=False", OWNER)
    # other extensions of this environment may be warned about.
    assert "registered for /user/ana/workbench/" not in server.log.read_text()
    assert "workbench.lab | extension was successfully loaded" in server.log.read_text()
    assert server.ask("/health", token=TOKEN)[0] == 200
    assert server.ask("/presets", token=TOKEN) == (200, {"presets": []})
    assert server.ask("/runs", body={"preset": "first_run"}, token=TOKEN)[0] == 409
    assert server.ask("/roster", token=TOKEN)[0] == 403
    for path in ("/runs", f"/runs/{server.run}"):
        assert server.ask(path)[0] == 403


@pytest.mark.slow
def test_a_lesson_starts_from_its_link_and_its_run_ends_with_the_server(own_jupyter):
    server = own_jupyter
    small = "preset=first_run&batch_size=1&sequence_length=16&steps=100000"
    code, answer = server.ask("/runs", body={"link": small}, token=TOKEN)
    assert (code, answer["queue_place"]) == (201, 0)
    run = f"/runs/{answer['id']}"
    assert server.ask("/runs", body={"preset": "first_run"}, token=TOKEN)[0] == 409
    state = wait_for(lambda: server.ask(run, token=TOKEN)[1], lambda state: (state.get("step") or 0) > 2)
    assert (state["kind"], state["owner"], state["status"], state["error"]) == ("child", "ana", "running", None)
    pause_it = server.ask(f"{run}/commands", body=pause("x"), token=TOKEN)
    assert (pause_it[0], pause_it[1]["status"]) == (202, "accepted")
    assert psutil.pid_exists(state["pid"])
    server.process.terminate()
    server.process.wait(30)
    assert not psutil.pid_exists(state["pid"])


def wait_for(ask, condition):
    """The first answer that is as wanted, within two minutes."""
    for _ in range(600):
        answer = ask()
        if condition(answer):
            return answer
        time.sleep(0.2)
    raise AssertionError(f"not within two minutes: {answer}")


@pytest.mark.slow
def test_our_pages_may_not_be_framed_and_our_answers_are_not_kept(server):
    opener, _ = server.log_in()
    with opener.open(server.api + "/runs") as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


class Unguarded(RequestHandler):
    def get(self):
        self.write("hello")


def test_every_method_of_every_handler_is_guarded_and_the_check_sees_one_that_is_not():
    check = ServerWebApplication._check_handler_auth
    found = routes(LabHandler, LabSocket, Hub())
    assert len(found) == 11
    assert [fault for pattern, handler, _ in found for fault in check(None, pattern, handler)] == []
    assert len(check(None, "/", Unguarded)) == 1


def test_the_routes_do_not_warn_under_any_base_url():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patterns = [url_path_join("/user/ana/", pattern) for pattern, _, _ in routes(LabHandler, LabSocket, Hub())]
    assert all(pattern.startswith("/user/ana/workbench/api/v1/") for pattern in patterns)


def test_jupyter_finds_what_it_looks_for(root):
    assert lab._jupyter_labextension_paths() == [{"src": "labextension", "dest": "@moe-workbench/lab"}]
    [point] = lab._jupyter_server_extension_points()
    assert (point["module"], point["app"].name) == ("workbench.lab", "workbench")
    shipped = json.loads((root / "workbench/lab/jupyter-config/moe-workbench.json").read_text())
    assert shipped == {"ServerApp": {"jpserver_extensions": {point["module"]: True}}}


def test_the_caps_can_be_set():
    app = lab.Workbench(threads=2, memory_gib=3, seconds=60, runs_per_user=4, runs_in_all=5)
    assert vars(app._caps()) == {
        "threads": 2,
        "memory_bytes": 3 * 2**30,
        "seconds": 60,
        "runs_per_user": 4,
        "runs_in_all": 5,
    }
    assert lab.Workbench(starts_runs=False)._caps() is None
    assert lab.Workbench().owner


PROBE = """
import json, sys, time
import jupyter_server.serverapp, jupyter_server.extension.application, tornado.websocket
began = time.process_time()
import workbench.lab
print(json.dumps([time.process_time() - began, sorted({"torch", "numpy", "xarray", "panel"} & set(sys.modules))]))
"""


def test_the_server_extension_adds_less_than_50_ms_to_the_start(tmp_path):
    # Compiled once, as an installed package is; processor time, because other tests run beside this one.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", PROBE]
    runs = [json.loads(subprocess.check_output(command, cwd=tmp_path, env=environment)) for _ in range(4)]
    assert [loaded for _, loaded in runs] == [[]] * 4
    assert min(seconds for seconds, _ in runs) < 0.05, runs
