"""The dashboard: the same views in a Panel page, with the hub behind it. The only package that needs Panel."""

from workbench.core.lazy import lazy_exports

__all__ = ["HomePane", "LivePane", "Place", "run_app"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "HomePane": "workbench.view.dashboard.panes",
        "LivePane": "workbench.view.dashboard.panes",
        "Place": "workbench.view.dashboard.server",
        "run_app": "workbench.view.dashboard.server",
    },
)
