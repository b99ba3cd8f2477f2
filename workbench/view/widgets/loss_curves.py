"""The view `loss_curves` as a widget."""

from typing import final

from workbench.payloads.loss_curves import loss_curves_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["LossCurvesWidget"]


@final
class LossCurvesWidget(ViewWidget):
    """Is it learning: training loss, held-out loss per domain, and every change made on the way."""

    view = "loss_curves"

    def _payload_of(self, trace: Trace) -> bytes:
        return loss_curves_payload(trace)
