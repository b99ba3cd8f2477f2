"""Whether a training goes on: running, standing still, so many steps more, or ending."""

from collections.abc import Callable
from typing import final

__all__ = ["Pace"]


@final
class Pace:
    """What people asked for with pause, resume, step and stop.

    Args:
        on_change: called after each of them.
    """

    def __init__(self, on_change: Callable[[], None]):
        self._on_change = on_change
        self._allowed: int | None = None
        self.is_stopping = False

    @property
    def is_paused(self) -> bool:
        """Whether no further step is allowed now."""
        return self._allowed == 0 and not self.is_stopping

    def pause(self) -> None:
        """Stand still after the step that is being done."""
        self._set(0)

    def resume(self) -> None:
        """Go on after a pause."""
        self._set(None)

    def step(self, count: int = 1) -> None:
        """Do so many steps, then pause."""
        self._set(count)

    def stop(self) -> None:
        """End after the step that is being done."""
        self.is_stopping = True
        self._set(None)

    def begin(self) -> None:
        """A new training begins; a pause that was asked for before holds."""
        self.is_stopping = False

    def did_step(self) -> None:
        """One step is done."""
        if self._allowed:
            self._allowed -= 1

    def _set(self, allowed: int | None) -> None:
        self._allowed = allowed
        self._on_change()
