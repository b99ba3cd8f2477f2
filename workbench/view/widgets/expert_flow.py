"""The view `expert_flow` as a widget."""

from typing import final

from workbench.payloads.expert_flow import expert_flow_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["ExpertFlowWidget"]


@final
class ExpertFlowWidget(ViewWidget):
    """Which experts go together: within a layer, and from one layer to the next."""

    view = "expert_flow"

    def _payload_of(self, trace: Trace) -> bytes:
        return expert_flow_payload(trace)
