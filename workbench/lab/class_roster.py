"""The roster of a class under JupyterHub: how far everybody is, in counts, for the instructors.

`python -m workbench.lab.class_roster --servers http://127.0.0.1:8000` is started by JupyterHub as a service; see
`jupyter-config/jupyterhub_config.py` beside this file. It asks each running server of the class for its own roster,
which holds no text, and answers nobody but those whom JupyterHub lets in.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.web import Application, RequestHandler, authenticated

__all__ = ["ClassRoster", "class_rows", "main", "make_app"]

_SECONDS = 5.0
_MOST_AT_ONCE = 16
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>The class</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 32px; color-scheme: light dark; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px; border-bottom: 1px solid #8884; text-align: left; }
</style>
<h1>The class</h1><p id="said" role="status">Asking every server…</p>
<table aria-describedby="said"><thead><tr id="head"></tr></thead><tbody id="rows"></tbody></table>
<script>
const names = ["student", "status", "step", "target_step", "loss", "idle_experts", "seconds"];
const cell = (kind, text) => Object.assign(document.createElement(kind), { textContent: text ?? "none" });
document.getElementById("head").append(...names.map((name) => cell("th", name.replaceAll("_", " "))));
async function look() {
  try {
    const { rows } = await (await fetch("rows")).json();
    document.getElementById("said").textContent = `${rows.length} rows at ${new Date().toLocaleTimeString()}`;
    const lines = rows.map((row) => {
      const line = document.createElement("tr");
      const shown = (value) => (typeof value === "number" ? +value.toFixed(3) : value);
      line.append(...names.map((name) => cell("td", shown(row[name]))));
      return line;
    });
    document.getElementById("rows").replaceChildren(...lines);
  } catch (error) {
    document.getElementById("said").textContent = `The roster cannot be read: ${error.message}. It is tried again.`;
  }
  setTimeout(look, 5000);
}
look();
</script></html>
"""


class ClassRoster(HubOAuthenticated, RequestHandler):
    """The page, and below it the rows as JSON."""

    def initialize(self, servers: str) -> None:
        """`servers` is the address under which the proxy shows every server."""
        self.servers = servers

    @authenticated
    async def get(self, what: str) -> None:
        """The page, or the rows."""
        if what != "rows":
            self.finish(_PAGE)
            return
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"rows": await class_rows(self.servers)}))


async def class_rows(servers: str) -> list[dict[str, Any]]:
    """One row per run of everybody whose server runs; one without a run has a row that says so."""
    users = json.loads((await _get(f"{os.environ['JUPYTERHUB_API_URL']}/users?state=active")).decode())
    places = [(user["name"], server["url"]) for user in users for server in user["servers"].values() if server["ready"]]
    limit = asyncio.Semaphore(_MOST_AT_ONCE)

    async def rows_of(name: str, path: str) -> Sequence[Mapping[str, Any]]:
        async with limit:
            try:
                found = json.loads(await _get(f"{servers}{path}workbench/api/v1/roster"))["runs"]
            except (HTTPClientError, OSError, ValueError, KeyError) as error:
                return [{"student": name, "status": f"no answer: {error}"[:80]}]
        return [{"student": name, **row} for row in found] or [{"student": name, "status": "no run"}]

    answers = await asyncio.gather(*(rows_of(name, path) for name, path in places))
    return [dict(row) for rows in answers for row in rows]


async def _get(address: str) -> bytes:
    token = os.environ["JUPYTERHUB_API_TOKEN"]
    asked = HTTPRequest(address, headers={"Authorization": f"token {token}"}, request_timeout=_SECONDS)
    return (await AsyncHTTPClient().fetch(asked)).body


def make_app(servers: str, prefix: str) -> Application:
    """The service, below the prefix that JupyterHub gives it."""
    routes = [
        (f"{prefix}oauth_callback", HubOAuthCallbackHandler),
        (f"{prefix}(rows)?", ClassRoster, {"servers": servers.rstrip("/")}),
    ]
    return Application(routes, cookie_secret=os.urandom(32))


async def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until JupyterHub ends the process."""
    parser = argparse.ArgumentParser(description="The roster of a class, as a service of JupyterHub.")
    parser.add_argument("--servers", required=True, help="address of JupyterHub's proxy, as http://127.0.0.1:8000")
    options = parser.parse_args(arguments)
    place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    make_app(options.servers, os.environ["JUPYTERHUB_SERVICE_PREFIX"]).listen(place.port or 80, place.hostname or "")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
