"""Token, cookie, header, origin and host on a server of our own."""

import asyncio
import re
from http.cookies import SimpleCookie

import pytest
from tornado.httpclient import HTTPClientError

from workbench.hub.access import LOGIN, Access
from workbench.hub.handlers import API

EVIL = {"Origin": "https://evil.example"}


async def log_in(server, token="token-of-ana"):
    """Headers of a browser that has opened a link with the token."""
    answer = await server.ask(
        f"{API}/health".replace(API, server.address + API) + f"?token={token}", token=None, raw=True
    )
    assert answer.code == 200
    jar = SimpleCookie()
    for line in answer.headers.get_list("Set-Cookie"):
        jar.load(line)
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items())
    return {"Cookie": cookies, "X-XSRFToken": jar["_xsrf"].value}, answer


def test_nothing_is_answered_without_a_token(serve):
    async def scenario():
        async with serve("ana") as server:
            run = server.runs[0].id
            gets = [
                "/health",
                "/runs",
                "/presets",
                "/roster",
                f"/runs/{run}",
                f"/runs/{run}/snapshot",
                "/runs/" + "0" * 32,
            ]
            posts = ["/runs", "/broadcast", f"/runs/{run}/commands"]
            for token in (None, "token-of-eve", "", "token-of-an", "token-of-ana "[:-1] + "a"):
                for path in gets:
                    assert (await server.ask(path, token=token))[0] == 403, path
                for path in posts:
                    assert (await server.ask(path, token=token, body={}))[0] == 403, path
                for path in (f"/runs/{run}/stream", "/runs/stream", f"/runs/{run}/stream?token=wrong-token"):
                    with pytest.raises(HTTPClientError) as refused:
                        await server.watch(path, token=token)
                    assert refused.value.code == 403

    asyncio.run(scenario())


def test_every_method_of_every_route_is_guarded(serve):
    async def scenario():
        async with serve() as server:
            rules = server.hub  # the server has no run: every route is asked all the same
            assert rules.states() == []
            for path in ("/health", "/runs", "/presets", "/roster", "/broadcast", "/runs/x/commands"):
                for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
                    body = b"" if method in ("POST", "PUT", "PATCH") else None
                    answer = await server.ask(path, token=None, method=method, body=body, raw=True)
                    assert answer.code == 403, (path, method)

    asyncio.run(scenario())


def test_a_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read(serve):
    async def scenario():
        async with serve("ana") as server:
            headers, answer = await log_in(server)
            [session] = [line for line in answer.headers.get_list("Set-Cookie") if line.startswith("workbench-")]
            assert re.match(rf"workbench-{server.port}=[\w-]{{43}};", session)
            assert "HttpOnly" in session
            assert "SameSite=Strict" in session
            assert "token-of-ana" not in session
            assert (await server.ask("/runs", token=None, headers=headers))[0] == 200
            again = await server.ask("/runs", token=None, headers=headers, raw=True)
            assert again.headers.get_list("Set-Cookie") == []

    asyncio.run(scenario())


def test_what_changes_something_needs_the_header_and_our_own_origin(serve):
    async def scenario():
        async with serve("ana") as server:
            path, body = f"/runs/{server.runs[0].id}/commands", {"id": "a", "op": "pause"}
            headers, _ = await log_in(server)
            cookie = {"Cookie": headers["Cookie"]}
            own = {"Origin": server.address}
            tried = [
                (cookie, 403),
                ({**cookie, "X-XSRFToken": "2|00000000|00000000000000000000000000000000|1"}, 403),
                ({**headers, **EVIL}, 403),
                ({**headers, "Origin": "null"}, 403),
                ({**headers, "Origin": f"http://127.0.0.1:{server.port + 1}"}, 403),
                (headers, 202),
                ({**headers, **own}, 202),
            ]
            codes = [(await server.ask(path, token=None, headers=sent, body=body))[0] for sent, _ in tried]
            assert codes == [code for _, code in tried]
            assert (await server.ask(path, headers=EVIL, body=body))[0] == 202  # a token is no secret of a browser

    asyncio.run(scenario())


def test_a_socket_opens_for_our_own_pages(serve):
    async def scenario():
        async with serve("ana") as server:
            path = f"/runs/{server.runs[0].id}/stream"
            headers, _ = await log_in(server)
            cookie = {"Cookie": headers["Cookie"]}
            for sent in ({**cookie, **EVIL}, {**cookie, "Origin": "null"}, {"Cookie": "workbench-80=guess"}):
                with pytest.raises(HTTPClientError) as refused:
                    await server.watch(path, token=None, headers=sent)
                assert refused.value.code == 403
            for sent in (cookie, {**cookie, "Origin": server.address}):
                (await server.watch(path, token=None, headers=sent)).close()
            (await server.watch(path, headers=EVIL)).close()

    asyncio.run(scenario())


def test_a_wrong_token_is_not_made_good_by_a_cookie(serve):
    async def scenario():
        async with serve("ana") as server:
            headers, _ = await log_in(server)
            assert (await server.ask("/runs", token="token-of-eve", headers=headers))[0] == 403
            assert (await server.ask("/runs?token=wrong-token", token=None, headers=headers))[0] == 403

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "0.0.0.0", ""])
def test_a_name_that_points_at_this_server_is_not_its_name(serve, host):
    async def scenario():
        async with serve("ana") as server:
            own = {"Host": f"{host}:{server.port}"}
            assert (await server.ask("/runs", headers=own))[0] in (400, 403)
            assert (await server.ask("/runs", headers={"Host": f"LOCALHOST:{server.port}"}))[0] == 200

    asyncio.run(scenario())


def test_the_log_in_goes_on_to_a_page_of_this_server(serve, caplog):
    async def scenario():
        async with serve("ana") as server:
            for following, code in (
                ("/app", 302),
                ("//evil.example", 400),
                ("https://evil.example", 400),
                ("/\\evil", 400),
            ):
                url = f"{server.address}{LOGIN}?token=token-of-ana&next={following}"
                answer = await server.ask(url, token=None, raw=True)
                assert answer.code == code
                assert code != 302 or (answer.headers["Location"], "Set-Cookie" in answer.headers) == ("/app", True)
            assert (await server.ask(f"{server.address}{LOGIN}?next=/app", token=None))[0] == 403
            assert (await server.ask(f"{server.address}{LOGIN}?token=wrong-token", token=None))[0] == 403

    caplog.set_level("INFO")
    asyncio.run(scenario())
    assert "token=hidden" in caplog.text
    assert "token-of-ana" not in caplog.text


def test_a_token_that_can_be_guessed_is_refused():
    with pytest.raises(ValueError, match="at least 8 characters"):
        Access({"": "ana"})


def test_people_are_told_apart():
    access = Access({"token-of-ana": "ana", "token-of-bob": "bob"})
    assert [access.user_of_token(token) for token in ("token-of-ana", "token-of-bob", "token-of-añá")] == [
        "ana",
        "bob",
        None,
    ]
    session = access.open_session("bob")
    assert access.user_of_session(session) == "bob"
    assert access.user_of_session(session[:-1]) is None
    assert access.user_of_session("") is None


def test_the_oldest_session_ends_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("workbench.hub.access._MOST_SESSIONS", 2)
    access = Access({"token-of-ana": "ana"})
    sessions = [access.open_session("ana") for _ in range(3)]
    assert [access.user_of_session(session) for session in sessions] == [None, "ana", "ana"]
    assert len(set(sessions)) == 3


def test_behind_a_proxy_any_name_is_good():
    assert Access({}, hosts=None).knows_host("hub.example")
    assert not Access({}).knows_host("hub.example")
