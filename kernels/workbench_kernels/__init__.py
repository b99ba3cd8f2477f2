"""Kernels of Mixture-of-Experts layers and the plain PyTorch references that specify them."""

from workbench_kernels.attention import attention
from workbench_kernels.backend import backend_of
from workbench_kernels.cross_entropy import cross_entropy
from workbench_kernels.grouped_mm import grouped_mm
from workbench_kernels.huggingface import register_transformers, unweighted_experts
from workbench_kernels.linear import linear
from workbench_kernels.moe_mlp import moe_mlp, token_mlp
from workbench_kernels.paging import paging_counts, paging_events, stack_hits
from workbench_kernels.plan import RoutingPlan, offsets_of, plan_from_groups, plan_from_mask, plan_routing
from workbench_kernels.rms_norm import rms_norm
from workbench_kernels.routing import permute, unpermute
from workbench_kernels.token_attention import AttentionWeights, TokenAttention
from workbench_kernels.token_choice import ChoiceGate, token_choice
from workbench_kernels.token_linear import token_linear
from workbench_kernels.token_step import BlockWeights, TokenStep
from workbench_kernels.topk import topk_gate

__all__ = [
    "AttentionWeights",
    "BlockWeights",
    "ChoiceGate",
    "RoutingPlan",
    "TokenAttention",
    "TokenStep",
    "attention",
    "backend_of",
    "cross_entropy",
    "grouped_mm",
    "linear",
    "moe_mlp",
    "offsets_of",
    "paging_counts",
    "paging_events",
    "permute",
    "plan_from_groups",
    "plan_from_mask",
    "plan_routing",
    "register_transformers",
    "rms_norm",
    "stack_hits",
    "token_choice",
    "token_linear",
    "token_mlp",
    "topk_gate",
    "unpermute",
    "unweighted_experts",
]
