"""Experts that are not exact: of how many pages they are read, which are left out, and what that costs."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "Decoder",
    "Precision",
    "PrecisionLoss",
    "format_of",
    "loss_of_precision",
    "share_levels",
    "usage_of",
    "without_light",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Decoder": "workbench.offload.precision.decoder",
        "Precision": "workbench.offload.precision.plan",
        "PrecisionLoss": "workbench.offload.precision.lossy",
        "format_of": "workbench.offload.precision.plan",
        "loss_of_precision": "workbench.offload.precision.lossy",
        "share_levels": "workbench.offload.precision.levels",
        "usage_of": "workbench.offload.precision.levels",
        "without_light": "workbench.offload.precision.skipping",
    },
)
