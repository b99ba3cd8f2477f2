"""The page: Panel's Material shell around the runs."""

from importlib.resources import files

import panel as pn
import panel_material_ui as pmu

from workbench.view.dashboard.panes import HomePane

__all__ = ["TITLE", "make_page"]

TITLE = "MoE Workbench"

# The bar is the darkest colour of the views' scale, in both themes; buttons of the shell take the views' accent.
_BAR = {"MuiAppBar": {"styleOverrides": {"root": {"backgroundColor": "#00224e", "color": "#ffffff"}}}}
_THEME = {
    "light": {"palette": {"primary": {"main": "#0b5cad"}}, "components": _BAR},
    "dark": {"palette": {"primary": {"main": "#6cb6ff"}}, "components": _BAR},
}


def make_page(*, api: str, xsrf: str) -> pn.viewable.Viewable:
    """One visitor's page; it holds no state of the runs.

    Args:
        api: path of the hub's routes.
        xsrf: name of the cookie that the page sends back with every change.
    """
    home = HomePane(api=api, xsrf=xsrf, sizing_mode="stretch_width", margin=0)
    page = pmu.Page(
        title=TITLE,
        main=[home],
        favicon=_icon(),
        site_url="./",
        theme_config=_THEME,
        busy_indicator=None,
    )
    home.param.watch(lambda change: setattr(page, "dark_theme", change.new), "prefers_dark")
    return page


def _icon() -> str:
    return str(files("workbench.view.dashboard").joinpath("icon.svg"))
