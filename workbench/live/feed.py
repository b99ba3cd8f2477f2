"""From what a run records to what its viewers get, on a thread of its own."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import final

import numpy as np

from workbench.hub.frames import DELTA, WHOLE
from workbench.hub.run_store import RunStore
from workbench.payloads.expert_flow import expert_flow_payload
from workbench.payloads.expert_load import grow_expert_load, growing_expert_load
from workbench.payloads.growing import Growing
from workbench.payloads.loss_curves import grow_loss_curves, growing_loss_curves
from workbench.payloads.shadow_router import shadow_router_payload
from workbench.payloads.token_strip import token_strip_payload
from workbench.trace.blocks import Attrs, Block, join, to_trace
from workbench.trace.schema import Trace

__all__ = ["OVERLOADED", "WATCHED", "Feed"]

_GROWING: dict[str, tuple[Callable[[Trace | None], Growing], Callable[[Growing, Block], bytes | None]]] = {
    "loss_curves": (growing_loss_curves, grow_loss_curves),
    "expert_load": (growing_expert_load, grow_expert_load),
}
WATCHED: dict[str, Callable[[Trace], bytes]] = {
    "token_strip": token_strip_payload,
    "expert_flow": expert_flow_payload,
    "shadow_router": shadow_router_payload,
}
"""Views of the newest tokens; each is built only while somebody looks at it."""

OVERLOADED = 2.0
"""Times its fair share of a layer's assignments from which an expert counts as overloaded, as in the views."""

_KEPT_TOKENS = 8192
_SHORTEST_SECONDS = 0.5
# a view that is built again takes at most this share of one core.
_LARGEST_SHARE = 0.02


@final
class Feed:
    """Publishes the views of a run.

    Args:
        store: of the run's frames.
        trace: what the run had recorded before it was watched.
        sampling: which tokens the run records, in words.

    Attributes:
        crowds: at the newest step and over all layers, `idle_experts` without work, and `overloaded_experts` with more
            than twice their fair share; empty before the first.
    """

    def __init__(self, store: RunStore, trace: Trace, *, sampling: str):
        self._store = store
        self._attrs: Attrs = {"": {str(k): v for k, v in trace.attrs.items()}, "routing": {"sampling": sampling}}
        self._came: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._recent: deque[Block] = deque()
        self._watched: frozenset[str] = frozenset()
        self._due: dict[str, float] = {}
        self._stale: set[str] = set()
        self._step = 0
        self.crowds: dict[str, int] = {}
        self._begin(trace)
        self._thread = threading.Thread(target=self._work, name="workbench feed", daemon=True)
        self._thread.start()

    def offer(self, block: Block) -> None:
        """Take what a recorder has packed."""
        self._came.put(lambda: self._take(block))

    def reset(self, trace: Trace, step: int) -> None:
        """Begin anew from a trace, as after a rewind."""

        def again() -> None:
            self._step = step
            self._recent.clear()
            self._begin(trace)

        self._came.put(again)

    def watch(self, topics: Iterable[str]) -> None:
        """Which views somebody looks at now."""
        wanted = frozenset(topics) & WATCHED.keys()

        def look() -> None:
            self._stale |= wanted - self._watched
            self._watched = wanted

        self._came.put(look)

    def settle(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until everything that was offered is published; False when the time is over first."""
        done = threading.Event()
        self._came.put(done.set)
        return done.wait(timeout_seconds)

    def close(self) -> None:
        """Publish what waits, and end the thread."""
        self._came.put(None)
        self._thread.join()

    def _begin(self, trace: Trace) -> None:
        self._growing = {topic: start(trace) for topic, (start, _) in _GROWING.items()}
        for topic, growing in self._growing.items():
            self._store.put(topic, growing.whole(), kind=WHOLE, step=self._step)
        self._stale |= WATCHED.keys()

    def _work(self) -> None:
        is_open = True
        while is_open:
            try:
                job = self._came.get(timeout=0.1)
                if job is None:
                    is_open = False
                else:
                    job()
            except Empty:
                pass
            self._build()

    def _take(self, block: Block) -> None:
        for name, clock in (("run", "step"), ("load", "step")):
            if name in block:
                self._step = max(self._step, int(block[name][clock][-1]))
        if "load" in block:
            load = block["load"]["load"][-1]
            fair = 1 / np.isfinite(load).sum(-1, keepdims=True)
            overloaded = int((load > OVERLOADED * fair).sum())
            self.crowds = {"idle_experts": int((load == 0).sum()), "overloaded_experts": overloaded}
        for topic, growing in self._growing.items():
            payload = _GROWING[topic][1](growing, block)
            if payload is None:
                continue
            self._store.put(topic, payload, kind=DELTA, step=self._step)
            if self._store.needs_whole(topic):
                self._store.put(topic, growing.whole(), kind=WHOLE, step=self._step)
        if "routing" in block:
            self._recent.append({"routing": block["routing"]})
            while len(self._recent) > 1 and sum(map(_tokens, self._recent)) > _KEPT_TOKENS:
                self._recent.popleft()
            self._stale |= WATCHED.keys()

    def _build(self) -> None:
        due = [t for t in self._watched & self._stale if self._due.get(t, 0.0) <= time.monotonic()]
        if not due:
            return
        trace = to_trace(join(list(self._recent)), self._attrs)
        for topic in due:
            began = time.perf_counter()
            self._store.put(topic, WATCHED[topic](trace), kind=WHOLE, step=self._step)
            cost = time.perf_counter() - began
            self._due[topic] = time.monotonic() + max(_SHORTEST_SECONDS, cost / _LARGEST_SHARE)
            self._stale.discard(topic)


def _tokens(block: Block) -> int:
    return len(block["routing"]["step"])
