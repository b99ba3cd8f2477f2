"""The view `token_strip` as a widget."""

from typing import final

from workbench.payloads.token_strip import token_strip_payload
from workbench.trace.schema import Trace
from workbench.view.widgets._base import ViewWidget

__all__ = ["TokenStripWidget"]


@final
class TokenStripWidget(ViewWidget):
    """Where does each token go: text coloured by expert, with every layer's experts and weights."""

    view = "token_strip"

    def _payload_of(self, trace: Trace) -> bytes:
        return token_strip_payload(trace)
