"""The runtime side of live control: a training that can be watched and steered while it goes on."""

from workbench.core.lazy import lazy_exports

__all__ = ["LiveRun", "RunStopped"]

__getattr__, __dir__ = lazy_exports(__name__, {"LiveRun": "workbench.live.run", "RunStopped": "workbench.live.run"})
