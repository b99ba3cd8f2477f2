"""Experts of which only some are in memory, as the model calls them."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "Asked",
    "ComputeCost",
    "HostPart",
    "HostRule",
    "HostSide",
    "OffloadedExperts",
    "TokenBringer",
    "asked_of",
    "measure_host",
    "rows_on_host",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Asked": "workbench.offload.compute.asked",
        "ComputeCost": "workbench.offload.compute.host_compute",
        "HostPart": "workbench.offload.compute.host_side",
        "HostRule": "workbench.offload.compute.host_compute",
        "HostSide": "workbench.offload.compute.host_side",
        "OffloadedExperts": "workbench.offload.compute.offloaded",
        "TokenBringer": "workbench.offload.compute.brought",
        "asked_of": "workbench.offload.compute.asked",
        "measure_host": "workbench.offload.compute.host_compute",
        "rows_on_host": "workbench.offload.compute.host_compute",
    },
)
