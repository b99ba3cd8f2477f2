"""Pages that show runs of a stand, watched for errors, for sockets and for requests to other hosts."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

# A test cannot put a window behind another one: it tells the page what the browser would.
HIDE = """(isHidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  const word = isHidden ? "hidden" : "visible";
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => word });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class LivePages:
    """Makes pages, and knows at the end what went wrong on them."""

    def __init__(self, browser: Any, stand: Any, probe: Path) -> None:
        self.browser, self.stand, self.probe = browser, stand, probe
        self.contexts: list[Any] = []
        self.problems: list[str] = []

    def open(
        self,
        run_id: str = "",
        *,
        width: int = 1180,
        dark: bool = False,
        may_fail: bool = False,
        wait: bool = True,
        host: str = "live",
        roles: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """A page with a run on it, logged in. It has `sockets`, `received` (messages) and `hide`."""
        scheme = "dark" if dark else "light"
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        self.contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.stand.address)
        page = context.new_page()
        page.add_init_script(path=self.probe)
        self._watch(page, may_fail)
        if roles is not None:
            where = f"**/workbench/api/v1/runs/{run_id}"
            page.route(where, lambda route: route.fulfill(status=200, body=json.dumps(roles)))
        wanted = {"host": host, "id": run_id, **({"dark": "1"} if dark else {}), **(query or {})}
        page.goto(self.stand.login(urlencode(wanted)))
        if wait and host == "live":
            page.wait_for_selector(".moe-live-bar, .moe-live-notice", state="attached")
            page.wait_for_function("() => window.__moe?.stats.length > 0")
        return page

    def close(self) -> list[str]:
        """Ends all pages; errors that were logged and requests that left the host."""
        for context in self.contexts:
            context.close()
        return self.problems

    def _watch(self, page: Any, may_fail: bool) -> None:
        page.sockets, page.received = [], []

        def on_socket(socket: Any) -> None:
            page.sockets.append(socket)
            socket.on("framereceived", lambda _: page.received.append(1))
            self._check(socket.url)

        page.on("websocket", on_socket)
        page.on("request", lambda request: self._check(request.url))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda said: self._hear(said, may_fail))
        page.hide = lambda is_hidden=True: page.evaluate(HIDE, is_hidden)

    def _hear(self, said: Any, may_fail: bool) -> None:
        # The browser itself logs every answer above 399 and every socket that did not open.
        is_expected = may_fail and said.text.startswith(("Failed to load resource", "WebSocket connection"))
        if said.type == "error" and not is_expected:
            self.problems.append(said.text)

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.stand.address).netloc:
            self.problems.append(f"a request left the host: {url}")
