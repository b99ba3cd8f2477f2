"""What a distribution must hold although git does not: the built JupyterLab extension."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "workbench/lab/labextension/build.json"


class LabExtension(BuildHookInterface[Any]):
    """Refuses a wheel or a source archive without the extension; an editable install goes without."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Look for the build before anything is packed.

        Raises:
            FileNotFoundError: the extension is not built.
        """
        if version != "editable" and not (Path(self.root) / BUILT).is_file():
            raise FileNotFoundError(
                f"expected the built JupyterLab extension, there is no {BUILT}; "
                "run `make setup` (or `python workbench/lab/build.py`) first, where npm is in reach"
            )
