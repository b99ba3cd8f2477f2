"""What a run shows to those outside: its store of frames, and the feed that fills it while it is open."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import final

from workbench.hub.frames import WHOLE
from workbench.hub.run_store import RunStore
from workbench.live.feed import Feed
from workbench.live.journal import Journal
from workbench.payloads.offload_timeline import offload_timeline_payload
from workbench.payloads.residency import residency_payload
from workbench.trace.blocks import to_trace
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace

__all__ = ["Outlet"]

_OFFLOAD: Mapping[str, Callable[[Trace], bytes]] = {
    "offload_timeline": offload_timeline_payload,
    "residency": residency_payload,
}


@final
class Outlet:
    """Costs nothing before `open`.

    Args:
        recorder: of the run; what it packs is published.

    Attributes:
        store: the frames.
        journal: of commands.
    """

    def __init__(self, recorder: Recorder):
        self.store = RunStore()
        self.journal = Journal(self.store)
        self._recorder = recorder
        self._feed: Feed | None = None
        self._watchers: dict[Hashable, tuple[str, ...]] = {}

    @property
    def is_open(self) -> bool:
        """Whether anything is published."""
        return self._feed is not None

    @property
    def crowds(self) -> Mapping[str, int]:
        """Idle and overloaded experts at the newest step, where they are known."""
        return {} if self._feed is None else self._feed.crowds

    def open(self) -> None:
        """Publish what was recorded so far and what comes; call it between steps."""
        self._feed = Feed(self.store, self._recorder.trace(), sampling=str(self._recorder.sampling))
        self._recorder.listen(self._feed.offer)
        shown, _ = self.store.since(0, topics=_OFFLOAD)
        if not shown:
            self.show_offload(to_trace({}, {}), step=0)

    def watch(self, watcher: Hashable, topics: Iterable[str]) -> None:
        """Say which views somebody looks at now; none when they stopped looking."""
        known = {**self._watchers, watcher: tuple(topics)}
        self._watchers = {key: value for key, value in known.items() if value}
        if self._feed is not None:
            self._feed.watch({topic for value in self._watchers.values() for topic in value})

    def put(self, topic: str, payload: bytes, *, step: int) -> None:
        """Replace what viewers have of a topic."""
        self.store.put(topic, payload, kind=WHOLE, step=step)

    def show_offload(self, trace: Trace, *, step: int) -> None:
        """Replace what viewers have of where experts are, and of what that costs.

        What trains is never offloaded, so these are no views of the run's own trace.

        Args:
            trace: of a text that an offloaded model writes; without events it says that there are none.
        """
        for topic, payload in _OFFLOAD.items():
            self.put(topic, payload(trace), step=step)

    def catch_up(self) -> None:
        """Publish what was recorded since the last time; call it between steps."""
        if self._feed is not None:
            self._recorder.pack()

    def begin_anew(self, step: int) -> None:
        """Show the trace anew, after what was recorded has changed."""
        if self._feed is not None:
            self._feed.reset(self._recorder.trace(), step)

    def settle(self) -> bool:
        """Wait until everything that was recorded is published; False when that takes too long."""
        return self._feed is None or self._feed.settle()

    def close(self) -> None:
        """Publish what is left, and end the feed; what viewers have stays."""
        if self._feed is not None:
            self.catch_up()
            self._recorder.listen(lambda block: None)
            self._feed.close()
            self._feed = None
