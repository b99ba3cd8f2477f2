"""Views of a trace: in a notebook cell and in a report that opens offline."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "ExpertFlowWidget",
    "ExpertLoadWidget",
    "LiveWidget",
    "LossCurvesWidget",
    "OffloadTimelineWidget",
    "ResidencyWidget",
    "ShadowRouterWidget",
    "TextSample",
    "TokenStripWidget",
    "write_report",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ExpertFlowWidget": "workbench.view.widgets.expert_flow",
        "ExpertLoadWidget": "workbench.view.widgets.expert_load",
        "LiveWidget": "workbench.view.widgets.live",
        "LossCurvesWidget": "workbench.view.widgets.loss_curves",
        "OffloadTimelineWidget": "workbench.view.widgets.offload_timeline",
        "ResidencyWidget": "workbench.view.widgets.residency",
        "ShadowRouterWidget": "workbench.view.widgets.shadow_router",
        "TextSample": "workbench.view.report",
        "TokenStripWidget": "workbench.view.widgets.token_strip",
        "write_report": "workbench.view.report",
    },
)
