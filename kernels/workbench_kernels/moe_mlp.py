"""SwiGLU experts from tokens to tokens: gather, two products, activation, weighted combine.

Saved for backward are the tokens and the pre-activations; the rows, the activations and the expert
outputs are made again (the memory of arXiv 2512.14080, in PyTorch).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.backend import autocast_inputs
from workbench_kernels.routing import gather_sum, rows_to_slots, slots_to_rows

__all__ = ["moe_mlp", "token_mlp"]


class _MoeMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, rows: Tensor, row_of: Tensor, counts: Tensor
    ) -> Tensor:
        sizes = counts.tolist()
        hidden = x.new_empty(rows.numel(), gate_up.shape[1])
        outputs = x.new_empty(rows.numel(), x.shape[1])
        for expert, place in _groups(sizes):
            torch.mm(x.index_select(0, rows[place]), gate_up[expert].t(), out=hidden[place])
            gate, up = hidden[place].chunk(2, dim=-1)
            torch.mm(F.silu(gate).mul_(up), down[expert].t(), out=outputs[place])
        ctx.save_for_backward(x, weight, gate_up, down, rows, row_of, hidden)
        ctx.sizes = sizes
        return gather_sum(outputs, row_of, weight)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gate_up, down, rows, row_of, hidden = ctx.saved_tensors
        learns_experts = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        grad_gate_up = _like(gate_up, ctx.sizes) if learns_experts else None
        grad_down = _like(down, ctx.sizes) if learns_experts else None
        grad_rows = x.new_empty(rows.numel(), x.shape[1])
        share = slots_to_rows(weight, row_of, rows.numel()).unsqueeze(-1)
        grad_share = torch.empty_like(share).squeeze(-1)
        for expert, place in _groups(ctx.sizes):
            grad_out = grad.index_select(0, rows[place])
            gate, up = hidden[place].chunk(2, dim=-1)
            silu = F.silu(gate)
            activation = silu * up
            grad_activation = grad_out @ down[expert]
            torch.sum(grad_activation * activation, dim=-1, out=grad_share[place])
            grad_activation.mul_(share[place])
            grad_hidden = torch.empty_like(hidden[place])
            grad_gate, grad_up = grad_hidden.chunk(2, dim=-1)
            torch.mul(grad_activation, silu, out=grad_up)
            grad_gate.copy_(torch.ops.aten.silu_backward(grad_activation.mul_(up), gate))
            torch.mm(grad_hidden, gate_up[expert], out=grad_rows[place])
            if grad_gate_up is not None and grad_down is not None:
                torch.mm(grad_out.t(), activation.mul_(share[place]), out=grad_down[expert])
                torch.mm(grad_hidden.t(), x.index_select(0, rows[place]), out=grad_gate_up[expert])
        grad_weight = rows_to_slots(grad_share, row_of)
        return gather_sum(grad_rows, row_of), grad_weight, grad_gate_up, grad_down, None, None, None


def _like(stacked: Tensor, sizes: list[int]) -> Tensor:
    # every expert with rows is written whole, so only the others need zeros.
    grad = torch.empty_like(stacked)
    for expert, size in enumerate(sizes):
        if size == 0:
            grad[expert].zero_()
    return grad


def _groups(sizes: list[int]) -> Iterator[tuple[int, slice]]:
    start = 0
    for expert, size in enumerate(sizes):
        if size:
            yield expert, slice(start, start + size)
        start += size


def moe_mlp(
    x: Float[Tensor, "T D"],
    weight: Float[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    *,
    rows: Int[Tensor, "N"],
    row_of: Int[Tensor, "T K"],
    counts: Int[Tensor, "E"],
) -> Float[Tensor, "T D"]:
    """Each token's weighted sum of its SwiGLU experts.

    Args:
        weight: what each slot's output is multiplied by.
        gate_up: gate rows above up rows.
        rows: token of each row, grouped by expert.
        row_of: row of each slot, -1 where there is none.
        counts: rows of each expert.
    """
    x, gate_up, down = autocast_inputs(x, gate_up, down)
    result: Tensor = _MoeMLP.apply(x, weight.to(x.dtype), gate_up, down, rows, row_of, counts)  # type: ignore[no-untyped-call]
    return result


def token_mlp(
    x: Float[Tensor, "1 D"],
    weight: Float[Tensor, "1 K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    *,
    expert: Int[Tensor, "1 K"],
) -> Float[Tensor, "1 D"]:
    """The same for one token, without sorting: what decoding at batch 1 needs. An expert of -1 adds nothing."""
    # the few matrices that are used are cast by the products themselves.
    (x,) = autocast_inputs(x)
    total = torch.zeros_like(x)
    shares = weight.to(x.dtype)
    for slot, index in enumerate(expert[0].tolist()):
        if index >= 0:
            gate, up = F.linear(x, gate_up[index]).chunk(2, dim=-1)
            total.addcmul_(F.linear(F.silu(gate) * up, down[index]), shares[:, slot, None])
    return total
