"""What an engine noted since somebody last asked, as much as there is room for."""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import final

from workbench.core.records import CacheEvent, ExpertKey
from workbench.offload.loop import Happening

__all__ = ["EventLog"]

_log = logging.getLogger(__name__)


@final
class EventLog:
    """Happenings until they are taken; the oldest go when there are too many, and it is said how many went.

    Args:
        key: the expert of a page.
        most: happenings that are kept; a hundred thousand take some 25 MB.

    Attributes:
        dropped: happenings that nobody took in time, since the last `clear`.
    """

    def __init__(self, key: Callable[[int], ExpertKey], *, most: int = 100_000):
        self.dropped = 0
        self._key, self._untold = key, 0
        self._kept: deque[Happening] = deque(maxlen=most)
        self._epoch = time.time() - time.perf_counter()

    def note(self, happening: Happening) -> None:
        """Remember it."""
        if len(self._kept) == self._kept.maxlen:
            self.dropped += 1
            self._untold += 1
        self._kept.append(happening)

    def take(self, step: int) -> list[CacheEvent]:
        """The events since the last call; a warning says how many went before it.

        Args:
            step: of the run that they belong to.
        """
        if self._untold:
            _log.warning(
                "%d cache events went lost before step %d: nobody took them; drain more often", self._untold, step
            )
            self._untold = 0
        events = [
            CacheEvent(
                time_ns=int((self._epoch + one.seconds) * 1e9),
                step=step,
                token=one.token,
                key=self._key(one.page),
                kind=one.kind,
                bytes=one.bytes,
                stall_seconds=one.stall_seconds,
            )
            for one in self._kept
        ]
        self._kept.clear()
        return events

    def clear(self) -> None:
        """Begin anew."""
        self._kept.clear()
        self.dropped = self._untold = 0
