"""A Jupyter server of its own process, with a password, a token and a base URL, and an invented run beside it."""

import http.cookiejar
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from jupyter_server.auth.security import passwd

TOKEN, PASSWORD = "a-token-of-this-test", "a-password-of-this-test"
HUB_TESTS = Path(__file__).parent.parent / "hub"


class Jupyter:
    """A running server and what people ask it."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen) -> None:
        self.root, self.log, self.process, self.port = f"http://127.0.0.1:{port}", log, process, port
        self.base = f"{self.root}/user/ana/"
        self.api = f"{self.base}workbench/api/v1"

    def ask(self, path, *, body=None, headers=None, opener=None, token=None):
        """Code and JSON of an answer."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**({"Authorization": f"token {token}"} if token else {}), **(headers or {})}
        request = urllib.request.Request(self.api + path, data=data, headers=sent)
        try:
            with (opener or urllib.request.build_opener()).open(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else {}

    def log_in(self):
        """A browser that has typed the password: opener, and what it sends as XSRF header."""
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        opener.open(self.base + "login", timeout=20).close()
        cookies = {cookie.name: cookie.value for cookie in jar}
        form = urllib.parse.urlencode({"password": PASSWORD, "_xsrf": cookies["_xsrf"]}).encode()
        opener.open(self.base + "login", data=form, timeout=20).close()
        cookies = {cookie.name: cookie.value for cookie in jar}
        return opener, cookies

    def socket_status(self, path, headers) -> int:
        """The status with which a WebSocket is opened or refused."""
        lines = [f"GET {urllib.parse.urlsplit(self.api + path)._replace(scheme='', netloc='').geturl()} HTTP/1.1"]
        lines += [f"Host: 127.0.0.1:{self.port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode())
            return int(sock.recv(4096).split()[1])


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Jupyter]:
    """A Jupyter server with our extension."""
    config = folder / "config" / "jupyter_server_config.d"
    config.mkdir(parents=True)
    shipped = Path(__file__).parents[2] / "workbench" / "lab" / "jupyter-config" / "moe-workbench.json"
    (config / shipped.name).write_text(shipped.read_text())
    port, log = free_port(), folder / "log"
    command = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--no-browser", "--allow-root"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--PasswordIdentityProvider.hashed_password={passwd(PASSWORD)}"]
    command += ["--ServerApp.base_url=/user/ana/", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
    environment = {
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
    }
    with log.open("wb") as file:
        process = subprocess.Popen([*command, *arguments], env=environment, stdout=file, stderr=file, cwd=folder)
    server = Jupyter(port, log, process)
    try:
        for _ in range(600):
            if re.search("is running at", log.read_text()):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def invented_run(folder: Path) -> Iterator[str]:
    """The id of an invented run that the server of this folder finds."""
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    command = [sys.executable, str(HUB_TESTS / "fake_runtime.py"), "--steps-per-second", "20"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory) -> Iterator[Callable[..., Jupyter]]:
    """Starts a server; each set of arguments has one, for the whole session."""
    servers = {}
    with ExitStack() as stack:

        def start(*arguments: str) -> Jupyter:
            if arguments not in servers:
                folder = tmp_path_factory.mktemp("jupyter")
                server = stack.enter_context(running(folder, *arguments))
                server.run = stack.enter_context(invented_run(folder))
                servers[arguments] = server
                for _ in range(100):
                    code, state = server.ask(f"/runs/{server.run}", token=TOKEN)
                    if code == 200 and state.get("step"):
                        break
                    time.sleep(0.1)
            return servers[arguments]

        yield start


@pytest.fixture
def own_jupyter(tmp_path) -> Iterator[Jupyter]:
    """A server for one test, which may end it."""
    with running(tmp_path, "--Workbench.owner=ana") as server:
        yield server
