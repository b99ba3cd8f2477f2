"""Kernels of Mixture-of-Experts layers and the plain PyTorch references that specify them."""

from workbench_kernels.backend import backend_of
from workbench_kernels.cross_entropy import cross_entropy
from workbench_kernels.grouped_mm import grouped_mm
from workbench_kernels.huggingface import register_transformers
from workbench_kernels.moe_mlp import moe_mlp, token_mlp
from workbench_kernels.plan import RoutingPlan, offsets_of, plan_from_groups, plan_from_mask, plan_routing
from workbench_kernels.rms_norm import rms_norm
from workbench_kernels.routing import permute, unpermute
from workbench_kernels.topk import topk_gate

__all__ = [
    "RoutingPlan",
    "backend_of",
    "cross_entropy",
    "grouped_mm",
    "moe_mlp",
    "offsets_of",
    "permute",
    "plan_from_groups",
    "plan_from_mask",
    "plan_routing",
    "register_transformers",
    "rms_norm",
    "token_mlp",
    "topk_gate",
    "unpermute",
]
