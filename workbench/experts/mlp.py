"""SwiGLU experts: the body of Mixtral, OLMoE, Qwen and DeepSeek models."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from workbench_kernels import moe_mlp, token_mlp

from workbench.core.context import RouteContext
from workbench.core.experts import Experts, TokenWeights
from workbench.core.sparse import SparseRouting

__all__ = ["MLPExperts"]


class MLPExperts(Experts):
    """down(silu(gate(x)) * up(x)) for each of E experts, as two stacked tensors.

    Args:
        width: model width D.
        num_experts: experts E.
        hidden: expert hidden width F.

    Source: arXiv 2002.05202 (SwiGLU).
    """

    gate_up: Float[Tensor, "E F2 D"]
    down: Float[Tensor, "E D F"]

    def __init__(self, width: int, num_experts: int, *, hidden: int):
        super().__init__(num_experts)
        self.gate_up = nn.Parameter(torch.empty(num_experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, hidden))

    def tensors(self) -> tuple[Any, ...]:
        """Gate rows above up rows, and the down projection."""
        return self.gate_up, self.down

    def token_weights(self) -> TokenWeights:
        """Both stacks, where they lie."""
        return TokenWeights(self.gate_up, self.down)

    def inputs(self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        """The rows for gate and up, their gated product for the way down."""
        gate, up = (rows @ tensors[0].T).chunk(2, dim=-1)
        return rows, nn.functional.silu(gate) * up

    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """Dispatch, SwiGLU and weighted combine in one fused call."""
        gate_up, down = tensors
        if plan.num_tokens == 1 and plan.kept is None and not torch.is_grad_enabled():
            return token_mlp(x, plan.weight, gate_up, down, expert=plan.expert)
        return moe_mlp(x, plan.weight, gate_up, down, plan=plan.plan)

    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """Every row after its expert, in float32: the fused call weighs and adds before it rounds."""
        rows, counts = plan.dispatch(x)
        alone = SparseRouting.identity(counts)
        return moe_mlp(rows, alone.weight, *tensors, plan=alone.plan, is_wide=True)
