"""The view `expert_load` as a widget."""

from typing import final

from workbench.payloads.expert_load import expert_load_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["ExpertLoadWidget"]


@final
class ExpertLoadWidget(ViewWidget):
    """Which experts do the work: load of every expert in every layer, at any step."""

    view = "expert_load"

    def _payload_of(self, trace: Trace) -> bytes:
        return expert_load_payload(trace)
