"""Training: schedules, optimiser, losses, checkpoints, and the loop that yields one report per step."""

from workbench.core.lazy import lazy_exports

__all__ = ["NonFiniteLossError", "SwapReport", "TrainConfig", "Trainer"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "NonFiniteLossError": "workbench.train.finite",
        "SwapReport": "workbench.train.swap",
        "TrainConfig": "workbench.train.config",
        "Trainer": "workbench.train.trainer",
    },
)
