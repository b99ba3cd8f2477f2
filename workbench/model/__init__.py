"""The decoder-only MoE transformer: configuration, layers, generation, weights."""

from workbench.core.lazy import lazy_exports

__all__ = ["PRESETS", "KVCache", "ModelConfig", "Sampling", "Transformer", "generate", "load", "preset"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "KVCache": "workbench.model.kv_cache",
        "ModelConfig": "workbench.model.config",
        "PRESETS": "workbench.model.config",
        "Sampling": "workbench.model.generate",
        "Transformer": "workbench.model.transformer",
        "generate": "workbench.model.generate",
        "load": "workbench.model.weights",
        "preset": "workbench.model.config",
    },
)
