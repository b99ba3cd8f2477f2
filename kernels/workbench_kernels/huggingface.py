"""These kernels as an experts implementation of transformers, for every model that lets one be chosen."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench_kernels.grouped_mm import grouped_mm
from workbench_kernels.moe_mlp import moe_mlp
from workbench_kernels.plan import RoutingPlan, plan_routing
from workbench_kernels.routing import permute, unpermute

__all__ = ["register_transformers", "unweighted_experts"]


def register_transformers(name: str = "workbench") -> None:
    """Let transformers run experts on these kernels: afterwards `experts_implementation="workbench"` is known.

    `from_pretrained` and `from_config` take it, and `set_experts_implementation` of a model. Weights stay as
    they are, so checkpoints load and save as before. Gated experts without biases run fused; those with biases,
    with another gate or with a norm behind them run on the grouped product and their own code.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    moe = importlib.import_module("transformers.integrations.moe")
    moe.ExpertsInterface.register(name, partial(_experts_forward, _known()))


def unweighted_experts(module: nn.Module, rows: Float[Tensor, "N D"], counts: Int[Tensor, "E"]) -> Float[Tensor, "N D"]:
    """Rows after their experts as these kernels weigh and add them, before they do; without gradients.

    Args:
        module: experts of transformers.
        rows: grouped by expert; the first `counts[0]` belong to expert 0, and so on.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    first = module.gate_up_proj if module.has_gate else module.up_proj
    expert = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts).unsqueeze(-1)
    plan = plan_routing(expert, first.shape[0])
    x, share = rows.to(first.dtype), torch.ones(expert.shape, device=rows.device)
    activation = _known().activation_of(module)
    if activation is None:
        return _by_steps(module, first, x, plan, share)
    return moe_mlp(x, share, first, module.down_proj, plan=plan, activation=activation, is_wide=True)


@dataclass(frozen=True)
class _Known:
    """What the fused kernel computes, in the words of transformers.

    Args:
        activations: name of the activation by class or function.
        default_gate: the gate method of modules that have none of their own.
    """

    activations: Mapping[Any, str]
    default_gate: Callable[..., Tensor]

    def activation_of(self, module: nn.Module) -> str | None:
        """The activation by which the fused kernel computes what the module does; None where it does not."""
        is_plain = module.has_gate and module.is_concatenated and not module.is_transposed
        if not is_plain or module.has_bias or module.has_post_expert_norm:
            return None
        if type(module)._apply_gate is not self.default_gate:
            return None
        act = module.act_fn
        return self.activations.get(type(act) if isinstance(act, nn.Module) else act)


@cache
def _known() -> _Known:
    moe = importlib.import_module("transformers.integrations.moe")
    classes = importlib.import_module("transformers.activations")
    activations = {
        classes.SiLUActivation: "silu",
        nn.SiLU: "silu",
        F.silu: "silu",
        classes.GELUActivation: "gelu",
        classes.GELUTanh: "gelu_tanh",
        nn.ReLU: "relu",
    }
    return _Known(activations, moe._default_apply_gate)


def _experts_forward(
    known: _Known,
    module: nn.Module,
    hidden_states: Float[Tensor, "T D"],
    top_k_index: Int[Tensor, "T K"],
    top_k_weights: Float[Tensor, "T K"],
) -> Float[Tensor, "T D"]:
    first = module.gate_up_proj if module.has_gate else module.up_proj
    # ids from num_experts on are those of other processes: they get no row.
    plan = plan_routing(top_k_index, first.shape[0])
    x = hidden_states
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(first.dtype)
    activation = known.activation_of(module)
    if activation is None:
        out = _by_steps(module, first, x, plan, top_k_weights)
    else:
        out = moe_mlp(x, top_k_weights, first, module.down_proj, plan=plan, activation=activation)
    return out.to(hidden_states.dtype)


def _by_steps(module: nn.Module, first: Tensor, x: Tensor, plan: RoutingPlan, weight: Tensor) -> Tensor:
    rows = permute(x, plan.rows, plan.row_of)
    rows = _linear(module, rows, first, "gate_up_proj_bias" if module.has_gate else "up_proj_bias", plan)
    rows = _activated(module, rows, plan)
    rows = _linear(module, rows, module.down_proj, "down_proj_bias", plan)
    if module.has_post_expert_norm:
        rows = module.post_expert_norm(rows)
    exact = torch.float64 if rows.dtype == torch.float64 else torch.float32
    # weighted and added in float32: the weights would lose more than the products did.
    return unpermute(rows.to(exact), plan.rows, plan.row_of, weight.to(exact))


def _activated(module: nn.Module, rows: Tensor, plan: RoutingPlan) -> Tensor:
    gate = module._apply_gate if module.has_gate else module.act_fn
    if torch.is_grad_enabled() or rows.device.type != "cpu":
        result: Tensor = gate(rows)
        return result
    # PyTorch rounds the last few elements of a tensor differently on a CPU: expert by expert, a row's bits do not
    # depend on which other experts run with it.
    low, *bounds = plan.offsets.tolist()
    sizes = [high - low for low, high in pairwise([low, *bounds])]
    return torch.cat([gate(part) for part in rows.split([*sizes, len(rows) - bounds[-1]]) if len(part)] or [gate(rows)])


def _linear(module: nn.Module, rows: Tensor, weight: Tensor, bias: str, plan: RoutingPlan) -> Tensor:
    matrices = weight.transpose(1, 2) if module.is_transposed else weight
    return grouped_mm(rows, matrices, plan.offsets, bias=getattr(module, bias) if module.has_bias else None)
