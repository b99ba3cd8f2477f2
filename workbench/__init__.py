"""MoE Workbench: train, watch and compare Mixture-of-Experts language models.

Public names load on first use, so that `import workbench` costs no torch.
"""

from workbench.core.lazy import lazy_exports

__version__ = "0.1.0"
__all__ = ["Session", "load"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {"Session": "workbench.session", "load": "workbench.model.weights"},
)
