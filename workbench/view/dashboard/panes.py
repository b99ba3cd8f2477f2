"""The modules that the other hosts use, as Panel components: they talk to the hub themselves, not through Bokeh."""

from typing import final

import param
from panel.custom import AnyWidgetComponent

from workbench.view.bundle import view_module

__all__ = ["HomePane", "LivePane"]


@final
class LivePane(AnyWidgetComponent):  # type: ignore[misc]
    """The live workbench of one run.

    One socket per page carries every frame, whatever the number of sessions; Panel only places the element.
    """

    _esm = view_module("live")

    api = param.String(doc="Path of the hub's routes, empty for the page to look for it.")
    token = param.String(doc="Token of the hub, empty where the page has its cookie.")
    xsrf = param.String(doc="Name of the cookie that the page sends back with every change.")
    run_id = param.String(doc="Name of the run.")
    views = param.List(default=[], item_type=str, doc="Names of the views to show, empty for all.")
    rate = param.Number(default=10, bounds=(0.1, 20), doc="Frames a second that the page asks for, at most.")
    selection = param.Dict(default={}, doc="What the reader chose: step, layer, expert, token.")


@final
class HomePane(AnyWidgetComponent):  # type: ignore[misc]
    """The runs of a hub: start one, open one, put several side by side."""

    _esm = view_module("home")

    api = param.String(doc="Path of the hub's routes, empty for the page to look for it.")
    token = param.String(doc="Token of the hub, empty where the page has its cookie.")
    xsrf = param.String(doc="Name of the cookie that the page sends back with every change.")
    run_id = param.String(doc="Name of the run that is open, empty for the list.")
    views = param.List(default=[], item_type=str, doc="Names of the views to show, empty for all.")
    prefers_dark = param.Boolean(default=False, doc="What the reader's system prefers; set by the page.")
