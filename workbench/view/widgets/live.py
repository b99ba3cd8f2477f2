"""The live workbench of a run as a widget: through the hub where there is one, else through the kernel."""

import math
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, final, runtime_checkable

import anywidget
import traitlets

from workbench.hub.run_store import RunStore
from workbench.hub.schema import CommandError
from workbench.hub.stream import Sink, Viewer
from workbench.view.bundle import view_module

__all__ = ["FASTEST", "LiveSource", "LiveWidget"]

FASTEST = 10.0
"""Messages per second that a kernel sends to a page, at most."""

_KEPT_ACKS = 50
_CHECK_SECONDS = 0.5


@runtime_checkable
class LiveSource(Protocol):
    """A run as the widget needs it."""

    @property
    def run_id(self) -> str:
        """Name of the run, as the hub knows it."""

    @property
    def store(self) -> RunStore:
        """What the run has published."""

    def watch(self, watcher: str, topics: Iterable[str]) -> None:
        """Build these topics for this watcher from now on; none of them when it looks away."""

    def send(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a command `{id, op, args}`; its answer: `status`, `code`, `reason`, `step`.

        Raises:
            CommandError: the command is refused.
        """


@final
class LiveWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """Watch and drive a run from a cell; without a front end it does nothing.

    The page looks for a hub first, because a hub answers while a cell runs. Without one, frames go through the kernel.

    Args:
        source: the run.
        views: names of the views to show; all by default.
        api: path of the hub's routes, where the page cannot find it by itself.
        token: of the hub, where the page has no cookie of it.
    """

    run_id = traitlets.Unicode().tag(sync=True)
    api = traitlets.Unicode().tag(sync=True)
    token = traitlets.Unicode().tag(sync=True)
    views = traitlets.List(traitlets.Unicode()).tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    frame = traitlets.Bytes().tag(sync=True)
    watching = traitlets.Dict().tag(sync=True)
    command = traitlets.Dict().tag(sync=True)
    acks = traitlets.Dict().tag(sync=True)
    _esm = traitlets.Unicode().tag(sync=True)

    def __init__(self, source: LiveSource, *, views: Iterable[str] = (), api: str = "", token: str = "") -> None:
        super().__init__(run_id=source.run_id, views=list(views), api=api, token=token)
        self._source = source
        self._publisher: _Publisher | None = None
        self.observe(self._on_watching, "watching")
        self.observe(self._on_command, "command")

    @traitlets.default("_esm")
    def _module(self) -> str:
        return view_module("live")

    def close(self) -> None:
        """Stop publishing and forget the page."""
        self._stop()
        super().close()

    def _on_watching(self, change: Mapping[str, Any]) -> None:
        wish = dict(change["new"])
        opening = wish.pop("opening", None)
        if opening is None:
            self._stop()
            return
        since = wish.pop("since", 0)
        if self._publisher is None or self._publisher.opening != opening:
            self._stop()
            self._publisher = _Publisher(self, self._source, opening, since)
        self._publisher.ask(wish)

    def _stop(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.end()
            # A notebook that is saved need not keep the last numbers of a page that is gone.
            self.frame = b""

    def _on_command(self, change: Mapping[str, Any]) -> None:
        command = change["new"]
        if "id" not in command:
            return
        try:
            ack = dict(self._source.send(command))
        except CommandError as error:
            ack = {"status": "refused", "code": error.code, "reason": error.reason}
        kept = list(self.acks.items())[1 - _KEPT_ACKS :]
        self.acks = {**dict(kept), command["id"]: {**ack, "id": command["id"]}}


@final
class _Publisher(Sink):
    """Sends what a page lacks through the widget's trait, from a thread that ends with the page.

    Args:
        opening: the page's name for this visit.
        since: the newest frame that the page has.
    """

    def __init__(self, widget: LiveWidget, source: LiveSource, opening: str, since: int) -> None:
        self.opening = opening
        self._widget = widget
        self._source = source
        self._viewer = Viewer(self, since=since, now=time.monotonic())
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._is_over = False
        threading.Thread(target=self._publish, name="workbench-live-widget", daemon=True).start()

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Take what the page wants now; a wish that cannot be read changes nothing."""
        with self._lock:
            try:
                self._viewer.ask(wish, now=time.monotonic())
            except CommandError:
                return
            self._viewer.rate = min(self._viewer.rate, FASTEST)
            topics = self._viewer.watched
        self._source.watch(self.opening, topics)
        self._changed.set()

    def end(self) -> None:
        """Send nothing more."""
        self._is_over = True
        self._changed.set()
        self._source.watch(self.opening, ())

    def write(self, data: bytes) -> None:
        """Send one message."""
        if not self._is_over:
            self._widget.frame = data

    def is_writing(self) -> bool:
        """A kernel queues what it sends."""
        return False

    def close(self, code: int, reason: str) -> None:
        """A page that reads too slowly is no matter here: it is fed whenever the kernel can."""

    def _publish(self) -> None:
        store = self._source.store
        while not self._is_over:
            seq = store.seq
            with self._lock:
                rate = self._viewer.rate
                again = self._viewer.advance(store, bytes, now=time.monotonic())
            if again < math.inf:
                self._pause(again - time.monotonic())
            elif rate == 0:
                self._pause(_CHECK_SECONDS)
            else:
                store.wait(seq, _CHECK_SECONDS)

    def _pause(self, seconds: float) -> None:
        self._changed.wait(max(0.0, seconds))
        self._changed.clear()
