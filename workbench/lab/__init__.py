"""The JupyterLab extension: what Jupyter asks a package, and the routes that the server mounts.

The server loads neither torch nor numpy through this package.
"""

from typing import Any

from workbench.lab.handlers import Workbench

__all__ = ["Workbench"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where Jupyter Server finds its extension."""
    return [{"module": "workbench.lab", "app": Workbench}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where JupyterLab finds what was built from `src`."""
    return [{"src": "labextension", "dest": "@moe-workbench/lab"}]
