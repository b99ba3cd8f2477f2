"""The contenders: each takes the same tensors; those that cannot run say why."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench_kernels import pytorch
from workbench_kernels.bench.cases import Case, Inputs
from workbench_kernels.moe_mlp import moe_mlp
from workbench_kernels.plan import RoutingPlan, plan_routing

__all__ = ["ORACLE", "OURS", "Layer", "contenders"]

Layer = Callable[[Tensor, Tensor], Tensor]
"""From tokens and weights to tokens; it learns into the two stacked tensors that all contenders share."""

OURS = "workbench"
ORACLE = "dense products alone"


def contenders(case: Case, inputs: Inputs, *, learns: bool) -> Mapping[str, Layer | str]:
    """A layer for each name, or one sentence that says why it does not run.

    Args:
        learns: backward is measured too.
    """
    found: dict[str, Layer | str] = {OURS: _ours(inputs), "workbench without a compiler": _fallback(inputs)}
    found["transformers grouped_mm"] = _transformers(case, inputs, "grouped_mm")
    # its backward makes a zero gradient of all experts for every expert.
    is_endless = learns and case.experts * inputs.gate_up.numel() > 2**31
    endless = "its backward is quadratic in the experts: minutes at this size"
    found["transformers eager"] = endless if is_endless else _transformers(case, inputs, "eager")
    if inputs.x.is_cuda:
        found["Liger-Kernel"] = _liger(inputs)
        found["ScatterMoE"] = _scattermoe(case, inputs)
    if not learns:
        found[ORACLE] = _dense(case, inputs)
    return found


def _ours(inputs: Inputs) -> Layer:
    experts = inputs.gate_up.shape[0]

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return moe_mlp(x, weight, inputs.gate_up, inputs.down, plan=plan_routing(inputs.expert, experts))

    return layer


class _Fallback(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, plan: RoutingPlan) -> Tensor:
        out, hidden = pytorch.forward(x, weight, gate_up, down, plan, activation="silu", keeps_hidden=True)
        ctx.save_for_backward(x, weight, gate_up, down, hidden)
        ctx.plan = plan
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:4]
        found = pytorch.backward(grad, *ctx.saved_tensors, ctx.plan, activation="silu", needs=needs, into=None)
        return (*found, None)


def _fallback(inputs: Inputs) -> Layer:
    experts = inputs.gate_up.shape[0]

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        plan = RoutingPlan(*pytorch.plan(inputs.expert, experts))
        out: Tensor = _Fallback.apply(x, weight, inputs.gate_up, inputs.down, plan)  # type: ignore[no-untyped-call]
        return out

    return layer


def _transformers(case: Case, inputs: Inputs, implementation: str) -> Layer | str:
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed"
    family = importlib.import_module("transformers.models.qwen3_moe.modeling_qwen3_moe")
    config = family.Qwen3MoeConfig(
        hidden_size=case.width,
        moe_intermediate_size=case.hidden,
        num_experts=case.experts,
        num_experts_per_tok=case.top_k,
    )
    config._experts_implementation = implementation
    with torch.device("meta"):
        module = family.Qwen3MoeExperts(config)

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        # the caller's tensors may have become leaves since.
        module._parameters.update(gate_up_proj=inputs.gate_up, down_proj=inputs.down)
        out: Tensor = module(x, inputs.expert, weight.to(x.dtype))
        return out

    return layer


def _liger(inputs: Inputs) -> Layer | str:
    if importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed"
    function = importlib.import_module("liger_kernel.ops.fused_moe").LigerFusedMoEFunction

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = function.apply(x, inputs.gate_up, inputs.down, inputs.expert.int(), weight)
        return out

    return layer


def _scattermoe(case: Case, inputs: Inputs) -> Layer | str:
    if importlib.util.find_spec("scattermoe") is None:
        return "scattermoe is not installed"
    mlp = importlib.import_module("scattermoe.mlp")
    module = mlp.GLUMLP(case.width, case.hidden, case.experts, case.top_k).to(inputs.x.device, inputs.x.dtype)
    gate, up = inputs.gate_up.chunk(2, dim=1)
    with torch.no_grad():
        # its halves are the other way round, and its activation is a module.
        module.experts.weight.copy_(torch.cat((up, gate), dim=1))
        module.output_experts.weight.copy_(inputs.down)
    module.activation = F.silu

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = module(x, weight.to(x.dtype), inputs.expert)
        return out

    return layer


def _dense(case: Case, inputs: Inputs) -> Layer:
    rows = case.tokens * case.top_k
    token, hidden = (torch.randn(rows, size).to(inputs.x) for size in (case.width, case.hidden))
    up, down = inputs.gate_up[0].detach().t(), inputs.down[0].detach().t()
    outs = token.new_empty(rows, 2 * case.hidden), token.new_empty(rows, case.width)

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        torch.mm(token, up, out=outs[0])
        torch.mm(hidden, down, out=outs[1])
        return outs[1]

    return layer
