"""The view `residency` as a widget."""

from typing import final

from workbench.payloads.residency import residency_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["ResidencyWidget"]


@final
class ResidencyWidget(ViewWidget):
    """Where are the experts: on the device, in the host's memory or on disk, at any recorded moment."""

    view = "residency"

    def _payload_of(self, trace: Trace) -> bytes:
        return residency_payload(trace)
