"""The dashboard's server: who gets in, what it answers, and that page and hub are one process."""

import asyncio
import gc
import json
import socket
import stat
from contextlib import asynccontextmanager

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from workbench.hub.children import Caps
from workbench.hub.hub import Hub
from workbench.hub.roles import Rules
from workbench.view.dashboard.server import Place, run_app

TOKEN = "a-token-of-tests"

pytestmark = [
    # Panel and Bokeh use what their own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@asynccontextmanager
async def serving(folder, **place):
    """The address of a running app."""
    ready, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
    hub = Hub(rules=Rules(owner="ana"), caps=Caps(), folder=folder)
    task = asyncio.create_task(run_app(Place(token=TOKEN, **place), on_ready=ready.set_result, hub=hub, stop=stop))
    done, _ = await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        task.result()
    try:
        yield ready.result().partition("/?token=")[0]
    finally:
        stop.set()
        await task


async def ask(url, *, method="GET", body=None, **headers):
    """Code, headers and text of an answer; redirects are not followed."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = HTTPRequest(url, method=method, body=body, headers=names, follow_redirects=False)
    answer = await AsyncHTTPClient().fetch(request, raise_error=False)
    return answer.code, answer.headers, (answer.body or b"").decode()


async def log_in(address):
    """The cookies that a browser has after the log-in, and where it was sent."""
    code, headers, _ = await ask(f"{address}/workbench/login?token={TOKEN}&next=/")
    assert code == 302
    cookies = [line.partition(";")[0] for line in headers.get_list("Set-Cookie")]
    return "; ".join(cookies), headers["Location"]


def run(folder, check, **place):
    async def within():
        async with serving(folder, **place) as address:
            await check(address)

    asyncio.run(within())


def test_the_page_needs_the_token_and_exchanges_it_for_a_cookie(tmp_path):
    async def check(address):
        code, headers, _ = await ask(f"{address}/")
        assert (code, headers["Location"]) == (302, "./workbench/welcome?next=%2F")
        code, headers, text = await ask(f"{address}/workbench/welcome")
        assert code == 401 and 'name="token"' in text
        code, headers, _ = await ask(f"{address}/?token=wrong-token")
        assert headers["Location"].startswith("./workbench/welcome")
        code, headers, _ = await ask(f"{address}/?token={TOKEN}")
        assert (code, headers["Location"]) == (302, f"./workbench/login?token={TOKEN}&next=%2F")
        cookies, following = await log_in(address)
        assert following == "/" and "workbench_xsrf=" in cookies
        code, _, text = await ask(f"{address}/", Cookie=cookies)
        assert code == 200 and "MoE Workbench" in text
        assert TOKEN not in text

    run(tmp_path, check)


def test_the_socket_of_the_page_needs_the_cookie_too(tmp_path):
    async def check(address):
        where = address.replace("http", "ws") + "/ws"
        with pytest.raises(Exception, match=r"HTTP (302|403)"):
            await websocket_connect(where)

    run(tmp_path, check)


def test_no_route_of_the_hub_answers_without_the_token(tmp_path):
    async def check(address):
        for path in (
            "health",
            "runs",
            "presets",
            "roster",
            "runs/x",
            "runs/x/snapshot",
            "runs/x/trace",
            "runs/x/stream",
        ):
            assert (await ask(f"{address}/workbench/api/v1/{path}"))[0] == 403, path
        code, _, text = await ask(f"{address}/workbench/api/v1/health", Authorization=f"token {TOKEN}")
        assert (code, json.loads(text)["ok"]) == (200, True)

    run(tmp_path, check)


def test_a_cookie_changes_nothing_without_the_header_and_from_another_page(tmp_path):
    async def check(address):
        cookies, _ = await log_in(address)
        xsrf = dict(part.split("=", 1) for part in cookies.split("; "))["workbench_xsrf"]
        url, body = f"{address}/workbench/api/v1/runs", json.dumps({"preset": "no such"})
        post = {"method": "POST", "body": body, "Cookie": cookies}
        assert (await ask(url, **post))[0] == 403
        assert (await ask(url, **post, X_XSRFToken=xsrf, Origin="http://evil.example"))[0] == 403
        assert (await ask(url, **post, X_XSRFToken=xsrf, Origin=address))[0] == 422

    run(tmp_path, check)


def test_a_page_that_points_its_own_name_at_this_machine_gets_nothing(tmp_path):
    async def check(address):
        cookies, _ = await log_in(address)
        code, headers, _ = await ask(f"{address}/", Cookie=cookies, Host="evil.example")
        assert code == 302 and "welcome" in headers["Location"]

    run(tmp_path, check)


def test_every_answer_says_what_a_page_may_load(tmp_path):
    async def check(address):
        cookies, _ = await log_in(address)
        for path in ("/", "/workbench/welcome", "/workbench/api/v1/runs", "/static/js/bokeh.min.js"):
            _, headers, _ = await ask(f"{address}{path}", Cookie=cookies)
            policy = headers["Content-Security-Policy"]
            assert "default-src 'self'" in policy and "http" not in policy, path
            assert headers["X-Content-Type-Options"] == "nosniff"

    run(tmp_path, check)


def test_presets_can_be_started_from_here(tmp_path):
    async def check(address):
        code, _, text = await ask(f"{address}/workbench/api/v1/presets", Authorization=f"token {TOKEN}")
        assert code == 200 and "first_run" in [lesson["id"] for lesson in json.loads(text)["presets"]]

    run(tmp_path, check)


def test_on_a_unix_socket_whoever_can_open_it_is_the_owner(tmp_path):
    path = tmp_path / "app"

    async def check(address):
        assert address == str(path)
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(
            b"GET /user/ana/workbench-app/workbench/api/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = (await reader.read()).decode()
        assert answer.startswith("HTTP/1.1 200") and '"ok": true' in answer
        writer.close()

    run(tmp_path, check, unix_socket=path, prefix="/user/ana/workbench-app")


def test_a_taken_port_is_an_error_of_the_system(tmp_path):
    async def check(address):
        pytest.fail("it started")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            run(tmp_path, check, port=taken.getsockname()[1])
    # tornado leaves the socket that it could not bind to the collector, which would complain in a later test.
    gc.collect()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_an_address_that_others_can_reach_needs_a_word(address):
    with pytest.raises(ValueError, match=r"address must be this machine's own, got .*add --open"):
        Place(address=address)
    assert Place(address=address, is_open=True).address == address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_addresses_of_this_machine_are_good(address):
    assert Place(address=address).address == address


def test_a_token_that_can_be_guessed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 8 characters"):
        asyncio.run(run_app(Place(token="short"), on_ready=print))
