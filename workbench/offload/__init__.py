"""A model whose experts do not fit into memory: tiers, caches, prefetchers, the live engine, and replay of traces."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "Cacheability",
    "HostRule",
    "LinkCost",
    "OffloadConfig",
    "OffloadedHost",
    "OffloadedModel",
    "PrecisionLoss",
    "Requests",
    "Scene",
    "cache_curves",
    "cacheability_of",
    "discard_labels",
    "fit_bits",
    "loss_of_precision",
    "measure_link",
    "offload_model",
    "open_offloaded",
    "open_offloaded_host",
    "requests_of",
    "train_path_predictor",
    "usage_of",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Cacheability": "workbench.offload.replay.cacheability",
        "HostRule": "workbench.offload.compute.host_compute",
        "LinkCost": "workbench.offload.tiers.cost",
        "OffloadConfig": "workbench.offload.config",
        "OffloadedHost": "workbench.offload.host",
        "OffloadedModel": "workbench.offload.model",
        "PrecisionLoss": "workbench.offload.precision.lossy",
        "Requests": "workbench.offload.requests",
        "Scene": "workbench.offload.replay.scene",
        "cache_curves": "workbench.offload.replay.curves",
        "cacheability_of": "workbench.offload.replay.cacheability",
        "discard_labels": "workbench.offload.policies._labels",
        "fit_bits": "workbench.offload.policies._bits",
        "loss_of_precision": "workbench.offload.precision.lossy",
        "measure_link": "workbench.offload.tiers.cost",
        "offload_model": "workbench.offload.model",
        "open_offloaded": "workbench.offload.model",
        "open_offloaded_host": "workbench.offload.host",
        "requests_of": "workbench.offload.replay.recorded",
        "train_path_predictor": "workbench.offload.path_predictor",
        "usage_of": "workbench.offload.precision.levels",
    },
)
