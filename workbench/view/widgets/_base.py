"""The part that all view widgets share: one payload out, one selection back."""

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, final

import anywidget
import traitlets

from workbench.trace.schema import Trace
from workbench.view.bundle import view_module

__all__ = ["ViewWidget"]


class ViewWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """A view in a notebook cell; without a front end it only holds its payload.

    Args:
        source: a trace, the bytes of a payload, or nothing yet.
    """

    view: ClassVar[str]

    payload = traitlets.Bytes().tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    _esm = traitlets.Unicode().tag(sync=True)

    def __init__(self, source: Trace | bytes | None = None) -> None:
        super().__init__()
        self._earliest_refresh = 0.0
        if source is not None:
            self.update(source)

    @abstractmethod
    def _payload_of(self, trace: Trace) -> bytes: ...

    @traitlets.default("_esm")
    def _module(self) -> str:
        return view_module(self.view)

    @final
    def update(self, source: Trace | bytes) -> None:
        """Show another trace, or more of the same one."""
        self.payload = source if isinstance(source, bytes) else self._payload_of(source)

    @final
    def refresh(self, make_trace: Callable[[], Trace], *, interval_seconds: float = 0.5) -> bool:
        """Show the newest trace if the last refresh is long enough ago; made to be called at every training step.

        The wait is also at least fifty times what a refresh costs, so that watching takes under 2 % of the time.
        Call `update` after the loop to show the last steps.

        Args:
            make_trace: called only when a refresh is due.
            interval_seconds: shortest time between two refreshes [s].

        Returns:
            Whether the view was refreshed.
        """
        started = time.monotonic()
        if started < self._earliest_refresh:
            return False
        self.update(make_trace())
        ended = time.monotonic()
        self._earliest_refresh = ended + max(interval_seconds, 50 * (ended - started))
        return True
