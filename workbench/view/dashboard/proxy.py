"""How Jupyter starts the dashboard behind itself: jupyter-server-proxy asks for this by an entry point."""

import sys
from importlib.resources import files
from typing import Any

__all__ = ["NAME", "proxied_app"]

NAME = "workbench-app"
"""Path of the dashboard below Jupyter's own; the hub inside Jupyter has `workbench`."""


def proxied_app() -> dict[str, Any]:
    """Command and launcher tile. On a Unix socket nobody but the owner can reach it, and Jupyter asks who comes."""
    command = [sys.executable, "-m", "workbench", "app", "--no-browser", "--unix-socket", "{unix_socket}"]
    return {
        "command": [*command, "--prefix", f"{{base_url}}{NAME}"],
        "unix_socket": True,
        "absolute_url": True,
        "timeout": 60,
        "launcher_entry": {
            "title": "MoE dashboard",
            "icon_path": str(files("workbench.view.dashboard").joinpath("icon.svg")),
        },
    }
