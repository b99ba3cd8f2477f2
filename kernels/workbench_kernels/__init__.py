"""Kernels of Mixture-of-Experts layers and the plain PyTorch references that specify them."""

from workbench_kernels.backend import backend_of
from workbench_kernels.grouped_mm import grouped_mm
from workbench_kernels.moe_mlp import moe_mlp, token_mlp
from workbench_kernels.routing import permute, unpermute

__all__ = ["backend_of", "grouped_mm", "moe_mlp", "permute", "token_mlp", "unpermute"]
