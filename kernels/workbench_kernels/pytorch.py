"""The engine that needs nothing but PyTorch: sorted rows, products per expert into kept buffers, gradients by hand.

Rows of one expert are gathered, multiplied, activated and multiplied again while they are in cache. Sums
over slots and over parts of an expert are in float32 (float64 for float64), whatever the dtype of the tokens.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench_kernels.parts import Part, parts_of
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.products import WeightGradient, cast, product_dtype, products, sum_dtype, wide_dtype
from workbench_kernels.workspace import buffer, recycled

__all__ = ["backward", "forward", "grouped_mm", "grouped_mm_backward", "plan"]

_ATEN = torch.ops.aten
_FORWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": lambda x, out: _ATEN.silu.out(x, out=out),
    "gelu": lambda x, out: _ATEN.gelu.out(x, out=out),
    "gelu_tanh": lambda x, out: _ATEN.gelu.out(x, approximate="tanh", out=out),
    "relu": lambda x, out: torch.clamp_min(x, 0, out=out),
}
_BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "silu": lambda grad, x, out: _ATEN.silu_backward.grad_input(grad, x, grad_input=out),
    "gelu": lambda grad, x, out: _ATEN.gelu_backward.grad_input(grad, x, grad_input=out),
    "gelu_tanh": lambda grad, x, out: _ATEN.gelu_backward.grad_input(grad, x, approximate="tanh", grad_input=out),
    "relu": lambda grad, x, out: _ATEN.threshold_backward.grad_input(grad, x, 0, grad_input=out),
}


def plan(expert: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, row of each slot and offsets of a choice; nothing waits for the device."""
    flat = expert.reshape(-1)
    # foreign ids go behind the last expert, where they are cut off.
    key = torch.where((flat >= 0) & (flat < num_experts), flat, num_experts).int()
    # sort is stable: ties keep token order, so replays are identical.
    ordered, slot = key.sort(stable=True)
    bounds = torch.arange(num_experts + 1, dtype=torch.int32, device=key.device)
    offsets = torch.searchsorted(ordered, bounds, out_int32=True)
    row = torch.arange(flat.numel(), dtype=torch.int32, device=flat.device)
    is_used = row < offsets[-1]
    rows = torch.where(is_used, slot.int() // max(expert.shape[1], 1), 0)
    row_of = torch.empty_like(row).scatter_(0, slot, torch.where(is_used, row, -1))
    return rows, row_of.view(expert.shape), offsets


def forward(
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    plan: RoutingPlan,
    *,
    activation: str,
    keeps_hidden: bool,
    is_wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """The layer's output, and the pre-activations where they are wanted."""
    exact = sum_dtype(x)
    hidden = recycled((plan.num_rows, gate_up.shape[1]) if keeps_hidden else (0,), x.dtype, x.device)
    # one row more than there are: absent slots take that row, which is zero.
    outputs = buffer("outputs", (plan.num_rows + 1, x.shape[1]), exact, x.device)
    bounds = plan.offsets.tolist()
    tokens, wide = cast(x, product_dtype(x), "tokens"), wide_dtype(x)
    for part in parts_of(bounds, gate_up):
        before = _pre_activation(tokens, gate_up, plan, part, hidden, exact)
        gate, up = before.chunk(2, dim=-1)
        value = _FORWARD[activation](gate, buffer("value", (part.size, down.shape[2]), exact, x.device))
        value = cast(value.mul_(up), wide, "narrow value")
        products(part, value, down, out=outputs[part.rows], is_turned=True, is_exact=True)
    total = _gather_sum(outputs, plan.row_of, weight, bounds[-1])
    return total if is_wide else total.to(x.dtype), hidden


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    hidden: Tensor,
    plan: RoutingPlan,
    *,
    activation: str,
    needs: tuple[bool, bool, bool, bool],
    into: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of what needs one; those of the matrices are added to `into` where it is given."""
    exact = sum_dtype(x)
    bounds = plan.offsets.tolist()
    share = _slots_to_rows(weight.to(exact), plan)
    grad_share = buffer("grad_share", share.shape, exact, x.device) if needs[1] else None
    tokens, above = cast(x, product_dtype(x), "tokens"), cast(grad, product_dtype(x), "above")
    grad_rows = buffer("outputs", (plan.num_rows + 1, x.shape[1]), exact, x.device) if needs[0] else None
    of_first = WeightGradient("gate_up", gate_up, into and into[0], bounds) if needs[2] else None
    of_second = WeightGradient("down", down, into and into[1], bounds) if needs[3] else None
    for part in parts_of(bounds, gate_up):
        before = _kept_pre_activation(tokens, gate_up, plan, part, hidden, exact)
        arrived = _gather(above, plan.rows[part.rows], "arrived")
        inner = buffer("inner", (part.size, down.shape[2]), exact, x.device)
        products(part, arrived, down, out=inner)
        value, slope = _through_activation(before, inner, share, part, activation, grad_share)
        if of_second is not None:
            # the narrower of the two is weighted, unless that would round it once more.
            (arrived if arrived.dtype == exact else value).mul_(share[part.rows].unsqueeze(-1))
            of_second.add(part, arrived, cast(value, tokens.dtype, "narrow value"))
        slope = cast(slope, tokens.dtype, "narrow slope")
        if grad_rows is not None:
            products(part, slope, gate_up, out=grad_rows[part.rows])
        if of_first is not None:
            of_first.add(part, slope, _gather(tokens, plan.rows[part.rows], "gathered"))
    return (
        None if grad_rows is None else _gather_sum(grad_rows, plan.row_of, None, bounds[-1]).to(x.dtype),
        None if grad_share is None else _rows_to_slots(grad_share, plan.row_of).to(weight.dtype),
        None if of_first is None or into is not None else of_first.target,
        None if of_second is None or into is not None else of_second.target,
    )


def grouped_mm(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Every group of rows times its own matrix; rows past the last group give zero."""
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    bounds = offsets.tolist()
    out[bounds[-1] :].zero_()
    tokens = cast(rows, product_dtype(rows), "tokens")
    for part in parts_of(bounds, weight):
        products(part, tokens[part.rows], weight, out=out[part.rows], is_turned=True)
    return out


def grouped_mm_backward(
    grad: Tensor, rows: Tensor, weight: Tensor, offsets: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the rows and of the matrices, where they are needed."""
    bounds = offsets.tolist()
    grad_rows = torch.empty_like(rows) if needs[0] else None
    of_weight = WeightGradient("gate_up", weight, None, bounds) if needs[1] else None
    if grad_rows is not None:
        grad_rows[bounds[-1] :].zero_()
    dtype = product_dtype(rows)
    tokens, above = cast(rows, dtype, "tokens"), cast(grad, dtype, "above")
    for part in parts_of(bounds, weight):
        if grad_rows is not None:
            products(part, above[part.rows], weight, out=grad_rows[part.rows])
        if of_weight is not None:
            of_weight.add(part, above[part.rows], tokens[part.rows])
    return grad_rows, None if of_weight is None else of_weight.target


def _pre_activation(
    tokens: Tensor, gate_up: Tensor, plan: RoutingPlan, part: Part, hidden: Tensor, exact: torch.dtype
) -> Tensor:
    gathered = _gather(tokens, plan.rows[part.rows], "gathered")
    before = buffer("before", (part.size, gate_up.shape[1]), exact, tokens.device)
    keeps = hidden.dim() == 2
    # what is kept is written in place, and read again while it is in cache.
    is_direct = keeps and hidden.dtype in (exact, gathered.dtype)
    out = products(part, gathered, gate_up, out=hidden[part.rows] if is_direct else before, is_turned=True)
    if keeps and not is_direct:
        hidden[part.rows].copy_(before)
    return out if out.dtype == exact else before.copy_(out)


def _kept_pre_activation(
    tokens: Tensor, gate_up: Tensor, plan: RoutingPlan, part: Part, hidden: Tensor, exact: torch.dtype
) -> Tensor:
    if hidden.dim() != 2:
        return _pre_activation(tokens, gate_up, plan, part, hidden, exact)
    return cast(hidden[part.rows], exact, "before")


def _through_activation(
    before: Tensor, inner: Tensor, share: Tensor, part: Part, activation: str, grad_share: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The activation, and the gradient of the pre-activation from that of the activation without its weight."""
    gate, up = before.chunk(2, dim=-1)
    acted = _FORWARD[activation](gate, buffer("acted", inner.shape, inner.dtype, inner.device))
    value = torch.mul(acted, up, out=buffer("value", inner.shape, inner.dtype, inner.device))
    if grad_share is not None:
        torch.linalg.vecdot(inner, value, out=grad_share[part.rows])
    inner.mul_(share[part.rows].unsqueeze(-1))
    slope = buffer("slope", before.shape, before.dtype, before.device)
    of_gate, of_up = slope.chunk(2, dim=-1)
    torch.mul(inner, acted, out=of_up)
    _BACKWARD[activation](inner.mul_(up), gate, of_gate)
    return value, slope


def _gather(tokens: Tensor, rows: Tensor, name: str) -> Tensor:
    out = buffer(name, (rows.shape[0], tokens.shape[1]), tokens.dtype, tokens.device)
    return torch.index_select(tokens, 0, rows, out=out)


def _gather_sum(rows: Tensor, row_of: Tensor, weight: Tensor | None, used: int) -> Tensor:
    if used == 0:
        return rows.new_zeros(row_of.shape[0], rows.shape[1])
    place, share = row_of, None if weight is None else weight.to(rows.dtype)
    if used < row_of.numel():
        is_absent = row_of < 0
        rows[-1].zero_()
        place = torch.where(is_absent, rows.shape[0] - 1, row_of)
        share = None if share is None else share.masked_fill(is_absent, 0)
    return F.embedding_bag(place, rows, mode="sum", per_sample_weights=share)


def _slots_to_rows(value: Tensor, plan: RoutingPlan) -> Tensor:
    # the last place takes what the absent slots hold.
    place = torch.where(plan.row_of < 0, plan.num_rows, plan.row_of).flatten().long()
    return value.new_empty(plan.num_rows + 1).scatter_(0, place, value.flatten())[: plan.num_rows]


def _rows_to_slots(value: Tensor, row_of: Tensor) -> Tensor:
    if value.numel() == 0:
        return value.new_zeros(row_of.shape)
    return value[row_of.clamp_min(0)].masked_fill(row_of < 0, 0)
