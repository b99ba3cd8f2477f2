"""A trace as the bytes that a view reads, one file per view; the numbers are those of the trace."""

from workbench.core.lazy import lazy_exports

__all__ = ["expert_load_payload", "loss_curves_payload", "token_strip_payload"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "expert_load_payload": "workbench.view.payloads.expert_load",
        "loss_curves_payload": "workbench.view.payloads.loss_curves",
        "token_strip_payload": "workbench.view.payloads.token_strip",
    },
)
