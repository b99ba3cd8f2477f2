"""A class of two on one machine: real JupyterHub, real servers, and who may see what."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[2] / "workbench" / "lab" / "jupyter-config" / "jupyterhub_config.py"
SECONDS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config_text(folder, proxy):
    """The shipped configuration with ports of the test, and log-ins and processes that need no accounts."""
    hub, port, roster = free_port(), free_port(), free_port()
    text = CONFIG.read_text().replace(":8000", f":{port}").replace(":10101", f":{roster}")
    return (
        port,
        text
        + f"""
c.JupyterHub.hub_port = {hub}
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {str(folder / "homes")!r} + "/{{username}}"
c.Spawner.cmd = [{sys.executable!r}, "-m", "jupyterhub.singleuser", "--allow-root"]
c.Spawner.environment |= {{"JUPYTER_CONFIG_PATH": {str(folder / "etc")!r}, "PYTHONWARNINGS": "ignore"}}
c.Spawner.start_timeout = {SECONDS}
c.Spawner.http_timeout = {SECONDS}
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{free_port()}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = {str(folder / "secret")!r}
""",
    )


class Person:
    """Somebody with a browser's cookies."""

    def __init__(self, base, name):
        self.base, self.name, self.cookies = base, name, CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        page = self.get("/hub/login")[1]
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page)[1]
        form = urllib.parse.urlencode({"username": name, "password": "x", "_xsrf": xsrf}).encode()
        self.opener.open(f"{base}/hub/login?next=/hub/home", form, timeout=30).read()

    def get(self, path):
        try:
            with self.opener.open(self.base + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def start_server(self):
        end = time.monotonic() + SECONDS
        self.get(f"/hub/spawn/{self.name}")
        while time.monotonic() < end:
            # the page first: it logs the browser in to the new server.
            self.get(f"/user/{self.name}/lab")
            status, text = self.get(f"/user/{self.name}/workbench/api/v1/health")
            if status == 200 and text.startswith("{"):
                return json.loads(text)
            time.sleep(0.5)
        raise AssertionError(f"the server of {self.name} did not come up: {status} {text[:300]}")


@pytest.fixture
def base(tmp_path):
    """The address of a JupyterHub."""
    proxy = shutil.which("configurable-http-proxy") or _installed(tmp_path)
    if proxy is None:
        pytest.skip("configurable-http-proxy is not installed and npm cannot bring it")
    (tmp_path / "etc" / "jupyter_server_config.d").mkdir(parents=True)
    enabled = {"ServerApp": {"jpserver_extensions": {"workbench.lab": True}}}
    (tmp_path / "etc" / "jupyter_server_config.d" / "workbench.json").write_text(json.dumps(enabled))
    port, text = config_text(tmp_path, [proxy])
    (tmp_path / "config.py").write_text(text)
    log = (tmp_path / "log.txt").open("w")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY"))}
    command = [sys.executable, "-m", "jupyterhub", "-f", tmp_path / "config.py"]
    hub = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=env)
    try:
        yield _when_up(f"http://127.0.0.1:{port}", hub, tmp_path / "log.txt")
    finally:
        hub.terminate()
        hub.wait(60)
        log.close()


def _installed(folder):
    if shutil.which("npm") is None:
        return None
    done = subprocess.run(
        ["npm", "install", "--silent", "--prefix", folder / "proxy", "configurable-http-proxy@5"],
        capture_output=True,
        check=False,
    )
    return str(folder / "proxy/node_modules/.bin/configurable-http-proxy") if done.returncode == 0 else None


def _when_up(base, hub, log):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and hub.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/hub/login", timeout=5):
                return base
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-3000:])


@pytest.mark.slow
def test_two_students_have_servers_of_their_own_and_the_instructor_sees_counts(base):
    ana, ben, teacher = (Person(base, name) for name in ("ana", "ben", "teacher"))
    assert ana.start_server()["ok"] and ben.start_server()["ok"]
    status, text = ana.get("/user/ben/workbench/api/v1/runs")
    assert status == 403 or "runs" not in text[:50], (status, text[:200])
    assert ana.get("/user/ana/workbench/api/v1/roster")[0] == 403
    assert ana.get("/services/class-roster/rows")[0] == 403
    status, text = teacher.get("/services/class-roster/rows")
    assert status == 200, text[:500]
    rows = json.loads(text)["rows"]
    assert sorted((row["student"], row["status"]) for row in rows) == [("ana", "no run"), ("ben", "no run")]
