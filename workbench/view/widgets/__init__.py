"""Views as Jupyter widgets, one file per view."""

from workbench.core.lazy import lazy_exports

__all__ = ["ExpertLoadWidget", "LossCurvesWidget", "TokenStripWidget"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ExpertLoadWidget": "workbench.view.widgets.expert_load",
        "LossCurvesWidget": "workbench.view.widgets.loss_curves",
        "TokenStripWidget": "workbench.view.widgets.token_strip",
    },
)
