"""The view `shadow_router` as a widget."""

from typing import final

from workbench.payloads.shadow_router import shadow_router_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["ShadowRouterWidget"]


@final
class ShadowRouterWidget(ViewWidget):
    """What would the shadow router do: its choices beside those of the router that acts."""

    view = "shadow_router"

    def _payload_of(self, trace: Trace) -> bytes:
        return shadow_router_payload(trace)
