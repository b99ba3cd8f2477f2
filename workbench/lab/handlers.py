"""The hub inside a Jupyter server: its log-in, its authorisation, its base URL, and what an administrator may set."""

import getpass
from operator import attrgetter

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import ensure_async
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler
from traitlets import Bool, Float, Int, List, Unicode, default

from workbench.hub.children import Caps
from workbench.hub.handlers import routes
from workbench.hub.hub import MOST_VIEWERS, Hub
from workbench.hub.link import FINAL
from workbench.hub.roles import Rules

__all__ = ["LabHandler", "LabSocket", "Workbench"]

RESOURCE = "workbench"
"""What an authorizer is asked about."""


async def _authorize(handler: JupyterHandler) -> None:
    """Raise 403 for somebody who is logged in and may not do this."""
    user, action = handler.current_user, HTTP_METHOD_TO_AUTH_ACTION[handler.request.method or "GET"]
    if user is None:
        return
    if not await ensure_async(handler.authorizer.is_authorized(handler, user, action, RESOURCE)):
        raise HTTPError(403, f"you are not authorized to {action} {RESOURCE}")


class LabHandler(APIHandler):
    """REST with Jupyter's log-in, XSRF check, origin check and authorizer."""

    auth_resource = RESOURCE

    async def prepare(self) -> None:
        """Check everything before anything is done."""
        await super().prepare()
        await _authorize(self)


class LabSocket(WebSocketMixin, JupyterHandler, WebSocketHandler):
    """WebSockets with the same checks."""

    auth_resource = RESOURCE

    async def prepare(self) -> None:
        """Check everything before the connection is opened."""
        await ensure_async(super().prepare())
        await _authorize(self)

    @ws_authenticated
    async def get(self, *args: str) -> None:
        """Open the connection for somebody who is logged in."""
        await super().get(*args)

    def get_login_url(self) -> str:
        """A socket cannot be sent to a page.

        Raises:
            HTTPError: 403, always.
        """
        raise HTTPError(403)


class Workbench(ExtensionApp):
    """MoE Workbench in a Jupyter server; set these in `jupyter_server_config.py` as `c.Workbench.seconds = 600`."""

    name = "workbench"
    load_other_extensions = True

    owner = Unicode(help="The person whose server this is; who runs it, by default.").tag(config=True)
    is_shared = Bool(False, help="Several people use this server, and its log-in tells them apart.").tag(config=True)
    instructors = List(Unicode(), help="Who may see the roster and tell all runs something.").tag(config=True)
    starts_runs = Bool(True, help="People may start runs from presets, without a notebook.").tag(config=True)
    threads = Int(Caps().threads, min=1, help="Threads of a started run.").tag(config=True)
    memory_gib = Float(Caps().memory_bytes / 2**30, min=1, help="Memory of a started run [GiB].").tag(config=True)
    seconds = Float(Caps().seconds, min=1, help="Longest life of a started run [s].").tag(config=True)
    runs_per_user = Int(Caps().runs_per_user, min=1, help="Started runs of one person at once.").tag(config=True)
    runs_in_all = Int(Caps().runs_in_all, min=1, help="Started runs of everybody at once.").tag(config=True)
    most_viewers = Int(MOST_VIEWERS, min=1, help="Open streams of everybody at once.").tag(config=True)

    @default("owner")
    def _default_owner(self) -> str:
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # a container may run under a number that has no name
            return "owner"

    def initialize_handlers(self) -> None:
        """Mount the routes and look for runs as soon as the server's loop turns."""
        rules = Rules(owner=self.owner, is_shared=self.is_shared, instructors=frozenset(self.instructors))
        self.hub = Hub(rules=rules, caps=self._caps(), name="jupyter", most_viewers=self.most_viewers)
        self.handlers.extend(routes(LabHandler, LabSocket, self.hub, user_of=attrgetter("username")))
        assert self.serverapp is not None, "an extension is linked before it is initialized"
        self.serverapp.io_loop.add_callback(self.hub.start)

    def current_activity(self) -> int:
        """Runs that are not over, so that a server is not culled while they train."""
        return sum(state["status"] not in (*FINAL, "waiting", "paused") for state in self.hub.states())

    async def stop_extension(self) -> None:
        """End what this server started."""
        await self.hub.stop()

    def _caps(self) -> Caps | None:
        if not self.starts_runs:
            return None
        return Caps(
            threads=self.threads,
            memory_bytes=int(self.memory_gib * 2**30),
            seconds=self.seconds,
            runs_per_user=self.runs_per_user,
            runs_in_all=self.runs_in_all,
        )
