"""Who asks, on a server of our own: a token, exchanged for a cookie that scripts cannot read.

The token comes as `Authorization: token T`, or as `?token=T`. With a cookie, whatever changes something also needs
the header `X-XSRFToken` and an origin that is this server.
"""

import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, final
from urllib.parse import urlsplit

from tornado.httputil import url_concat
from tornado.web import HTTPError, RequestHandler, authenticated
from tornado.websocket import WebSocketHandler

__all__ = ["LOCAL_HOSTS", "LOGIN", "Access", "LoginHandler", "TokenHandler", "TokenSocket", "token_bases"]

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
LOGIN = "/workbench/login"

_MOST_SESSIONS = 10_000
_COOKIE_DAYS = 7


@final
class Access:
    """Tokens, the people they stand for, and the sessions opened with them.

    Args:
        tokens: token -> name of its person.
        hosts: names under which this server may be addressed, against pages that point a name of their own at it;
            None on a Unix socket behind a proxy that checks.

    Raises:
        ValueError: a token that can be guessed.
    """

    def __init__(self, tokens: Mapping[str, str], *, hosts: Iterable[str] | None = LOCAL_HOSTS) -> None:
        if any(len(token) < 8 for token in tokens):
            raise ValueError("a token has at least 8 characters; use secrets.token_urlsafe()")
        self._tokens = {token.encode(): name for token, name in tokens.items()}
        self._hosts = None if hosts is None else frozenset(hosts)
        self._sessions: OrderedDict[str, str] = OrderedDict()

    def user_of_token(self, token: str) -> str | None:
        """The person of a token. Every token is compared, in a time that does not depend on where they differ."""
        given = token.encode()
        found = [name for known, name in self._tokens.items() if hmac.compare_digest(known, given)]
        return found[0] if found else None

    def open_session(self, user: str) -> str:
        """A secret for a cookie that stands for this person until the server ends."""
        secret = secrets.token_urlsafe(32)
        self._sessions[secret] = user
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return secret

    def user_of_session(self, secret: str) -> str | None:
        """The person of a cookie."""
        return self._sessions.get(secret)

    def knows_host(self, name: str) -> bool:
        """True for a name of this server."""
        return self._hosts is None or name.lower() in self._hosts


class TokenHandler(RequestHandler):
    """A handler that knows who asks by token or cookie. `token_bases` binds it to an `Access`."""

    access: Access
    _has_token = False

    def get_current_user(self) -> str | None:
        """The person, None for somebody unknown. A wrong token is not made good by a cookie."""
        token = self._given_token()
        if token is not None:
            self._has_token = True
            return self.access.user_of_token(token)
        return self.access.user_of_session(self.get_cookie(self._cookie_name(), "") or "")

    def get_login_url(self) -> str:
        """There is no page to log in on.

        Raises:
            HTTPError: 403, always.
        """
        raise HTTPError(403, "this server needs its token")

    def check_xsrf_cookie(self) -> None:
        """Only a cookie is sent without the page's knowledge; a token is not."""
        if self.current_user is None or not self._has_token:
            super().check_xsrf_cookie()

    def prepare(self) -> Awaitable[None] | None:
        """Check host, person, origin and header before anything is done."""
        if not self.access.knows_host(self.request.host_name):
            raise HTTPError(403, "this server does not answer under that name")
        user = self.current_user
        self._hide_token()
        if user is None:
            raise HTTPError(403, "this server needs its token")
        if self.request.method not in ("GET", "HEAD", "OPTIONS"):
            self._check_origin()
            self.check_xsrf_cookie()
        elif not self._is_socket():
            self._remember(user)
        return super().prepare()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A refusal as JSON."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        reason = HTTPStatus(status_code).phrase
        if isinstance(error, HTTPError) and error.log_message:
            reason = error.log_message.replace("%%", "%")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"status": "refused", "code": status_code, "reason": reason}))

    def _given_token(self) -> str | None:
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() in ("token", "bearer"):
            return token.strip()
        return self.get_query_argument("token", None)

    def _is_socket(self) -> bool:
        return self.request.headers.get("Upgrade", "").lower() == "websocket"

    def _cookie_name(self) -> str:
        """Browsers share cookies between the ports of a host; servers must not."""
        return f"workbench-{urlsplit(f'//{self.request.host}').port or 'default'}"

    def _remember(self, user: str) -> None:
        """Exchange a token in the address for a cookie, and give pages what they must send back with every change."""
        if "Authorization" in self.request.headers:
            return
        if self.access.user_of_session(self.get_cookie(self._cookie_name(), "") or "") != user:
            self.set_cookie(
                self._cookie_name(),
                self.access.open_session(user),
                expires_days=_COOKIE_DAYS,
                httponly=True,
                samesite="Strict",
                secure=self.request.protocol == "https",
            )
        assert self.xsrf_token, "reading it sets the cookie"

    def _check_origin(self) -> None:
        """Raise 403 for a page of another server, unless it has the token."""
        origin = self.request.headers.get("Origin")
        if origin is not None and not self._has_token and urlsplit(origin).netloc.lower() != self.request.host.lower():
            raise HTTPError(403, "pages of another origin may not do that")

    def _hide_token(self) -> None:
        """Access logs show the address of a request."""
        if "token" in self.request.query_arguments:
            self.request.uri = url_concat(self.request.path, {"token": "hidden"})


class TokenSocket(TokenHandler, WebSocketHandler):
    """The same for WebSockets: a cookie counts only for pages of this server."""

    def check_origin(self, origin: str) -> bool:
        """A page of this server may open a socket, and one that has the token."""
        return self._has_token or urlsplit(origin).netloc.lower() == self.request.host.lower()

    @property
    def ping_interval(self) -> float | None:
        """How often it is looked whether the viewer is still there [s]."""
        return 30.0

    @property
    def ping_timeout(self) -> float | None:
        """How long an answer may take [s]."""
        return 30.0


class LoginHandler(TokenHandler):
    """`?token=T&next=/page`: takes the token, sets the cookie and goes on to a page whose address has no token."""

    @authenticated
    def get(self) -> None:
        """Go on to a page of this server."""
        following = self.get_query_argument("next", "/")
        if not following.startswith("/") or following[1:2] in ("/", "\\"):
            raise HTTPError(400, "next must be a path of this server")
        self.redirect(following)


def token_bases(access: Access) -> tuple[type[TokenHandler], type[TokenSocket], type[LoginHandler]]:
    """The bases for `workbench.hub.handlers.routes`, and the log-in, bound to these tokens."""
    bound = {"access": access}
    return (
        type("BoundHandler", (TokenHandler,), bound),
        type("BoundSocket", (TokenSocket,), bound),
        type("BoundLogin", (LoginHandler,), bound),
    )
