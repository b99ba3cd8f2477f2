"""The hub between runs and viewers: one store, one stream, one list of commands. Standard library and tornado only."""

from importlib import import_module
from typing import Any

_MODULES = {
    "COMMANDS": "workbench.hub.commands",
    "Command": "workbench.hub.commands",
    "CommandError": "workbench.hub.schema",
    "Connection": "workbench.hub.places",
    "Frame": "workbench.hub.frames",
    "RunStore": "workbench.hub.run_store",
    "check_command": "workbench.hub.commands",
}

__all__ = ["COMMANDS", "Command", "CommandError", "Connection", "Frame", "RunStore", "check_command"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
