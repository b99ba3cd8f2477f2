"""Who may open the page: the same token and cookie as the hub's routes, and headers that keep the page to its host."""

from collections.abc import Callable
from typing import final
from urllib.parse import urlencode

from bokeh.server.auth_provider import AuthProvider
from tornado.escape import xhtml_escape
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform, RequestHandler

from workbench.hub.access import LOGIN, TokenHandler, TokenSocket

__all__ = ["LOGIN_PAGE", "SocketHandler", "SocketStream", "StayHome", "TokenAuth", "WelcomeHandler"]

LOGIN_PAGE = "/workbench/welcome"

_FORM = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>MoE Workbench: token</title><style>
body { max-width: 460px; margin: 12vh auto; padding: 0 20px; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; } label { display: block; margin: 18px 0 6px; font-weight: 600; }
input, button { font: inherit; padding: 8px 12px; } input { width: 100%; box-sizing: border-box; }
button { margin-top: 12px; }
</style></head><body><main><h1>This page needs a token</h1>
<p>The terminal that runs <code>workbench app</code> shows an address with the token in it. Open that address, or put
the token here.</p><form action="login"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" required>
<input type="hidden" name="next" value="../"><button>Open the workbench</button></form></main></body></html>"""

# Panel starts its page from scripts in it and loads components from blobs; whatever else it asks for is this host's.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline' blob:",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)


@final
class TokenAuth(AuthProvider):  # type: ignore[misc]
    """Bokeh's question who opens a page, answered as the hub answers it.

    Args:
        base: the hub's handler class, bound to its tokens.
    """

    def __init__(self, base: type[TokenHandler]) -> None:
        self._reader = type("Reader", (_Reader, base), {})
        super().__init__()

    @property
    def get_user(self) -> Callable[[RequestHandler], str | None]:
        """Called by Bokeh for every page and socket: the person, or None."""
        return lambda handler: self._reader(handler.request).person()

    @property
    def get_login_url(self) -> Callable[[RequestHandler], str]:
        """Called by Bokeh for somebody unknown: where the token is exchanged for a cookie, or asked for."""
        return self._way_in

    def _way_in(self, handler: RequestHandler) -> str:
        token, path = handler.get_query_argument("token", ""), handler.request.path
        if self._reader.access.user_of_token(token) is None:
            return LOGIN_PAGE
        return f"{LOGIN}?{urlencode({'token': token, 'next': path if path.endswith('/') else f'{path}/'})}"


class _Reader(TokenHandler):
    """Reads who asks from a request that another handler answers."""

    def __init__(self, request: HTTPServerRequest) -> None:
        # Not tornado's: that one would take the connection over.
        self.request = request

    def person(self) -> str | None:
        """The person of the cookie. One who brings our token in the address is sent to have it exchanged."""
        if not self.access.knows_host(self.request.host_name):
            return None
        user = self.get_current_user()
        return None if self._has_token and "token" in self.request.query_arguments else user


class WelcomeHandler(RequestHandler):
    """The page for somebody without a token."""

    def get(self) -> None:
        """A field for the token."""
        self.set_header("Cache-Control", "no-store")
        self.set_status(401)
        prefix = self.request.path.removesuffix(LOGIN_PAGE)
        self.finish(_FORM.replace('value="../"', f'value="{xhtml_escape(prefix)}/"'))


class SocketHandler(TokenHandler):
    """On a Unix socket that only its owner can open, whoever asks is the owner; pages of other origins are not."""

    owner: str

    def get_current_user(self) -> str:
        """The owner."""
        return self.owner


class SocketStream(SocketHandler, TokenSocket):
    """The same for WebSockets."""


class StayHome(OutputTransform):
    """Headers of every answer: what a page may load, and that it hides its address from other pages."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Called by tornado before an answer leaves."""
        headers["Content-Security-Policy"] = _POLICY
        headers["Referrer-Policy"] = "no-referrer"
        headers["X-Content-Type-Options"] = "nosniff"
        return status_code, headers, chunk
