"""The view `offload_timeline` as a widget."""

from typing import final

from workbench.payloads.offload_timeline import offload_timeline_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["OffloadTimelineWidget"]


@final
class OffloadTimelineWidget(ViewWidget):
    """What does offloading cost: hits, misses and waits, token by token."""

    view = "offload_timeline"

    def _payload_of(self, trace: Trace) -> bytes:
        return offload_timeline_payload(trace)
