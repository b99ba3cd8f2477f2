"""Views of a trace: in a notebook cell and in a report that opens offline."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "ExpertLoadWidget",
    "LossCurvesWidget",
    "TextSample",
    "TokenStripWidget",
    "expert_load_payload",
    "loss_curves_payload",
    "token_strip_payload",
    "write_report",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ExpertLoadWidget": "workbench.view.widgets.expert_load",
        "LossCurvesWidget": "workbench.view.widgets.loss_curves",
        "TextSample": "workbench.view.report",
        "TokenStripWidget": "workbench.view.widgets.token_strip",
        "expert_load_payload": "workbench.view.payloads.expert_load",
        "loss_curves_payload": "workbench.view.payloads.loss_curves",
        "token_strip_payload": "workbench.view.payloads.token_strip",
        "write_report": "workbench.view.report",
    },
)
