"""MoE Workbench: train, watch and compare Mixture-of-Experts language models.

Public names load on first use, so that `import workbench` costs no torch.
"""

from workbench.core.lazy import lazy_exports

__version__ = "0.1.0"
__all__ = ["Comparison", "Session", "Spec", "TrainConfig", "compare", "gallery", "load", "replay"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Comparison": "workbench.train.comparison",
        "Session": "workbench.session",
        "Spec": "workbench.core.spec",
        "TrainConfig": "workbench.train.config",
        "compare": "workbench.train.comparison",
        "gallery": "workbench.view.gallery",
        "load": "workbench.model.weights",
        "replay": "workbench.offload.replay.scene",
    },
)
