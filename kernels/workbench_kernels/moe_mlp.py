"""Gated experts from tokens to tokens: gather, two products, activation, weighted combine, in one call.

Saved for backward are the tokens and the pre-activations, or the tokens alone; the rows, the activations
and the expert outputs are made again (the memory of arXiv 2512.14080).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.backend import autocast_inputs, backend_of, engine_of, narrowed_by_engine, tokens_of
from workbench_kernels.moe_mlp_checks import check_layer
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.tracing import is_traced

__all__ = ["moe_mlp", "token_mlp"]


def moe_mlp(
    x: Float[Tensor, "T D"],
    weight: Float[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    *,
    plan: RoutingPlan,
    activation: str = "silu",
    save: str = "hidden",
    into: tuple[Tensor, Tensor] | None = None,
    is_wide: bool = False,
) -> Float[Tensor, "T D"]:
    """Each token's weighted sum of its gated experts.

    Args:
        weight: what each slot's output is multiplied by; float32 keeps its accuracy.
        gate_up: gate rows above up rows.
        plan: from `plan_routing` or its kin.
        activation: of the gate: `silu`, `gelu`, `gelu_tanh` or `relu`.
        save: `hidden` keeps the pre-activations for backward, `input` makes them again from the tokens.
        into: buffers to which backward adds the gradients of `gate_up` and `down`, which then get none
            of their own; not with DDP, which waits for those gradients.
        is_wide: the sums in float32, before they are rounded to the dtype of `x`: parts of a layer that are
            added later lose nothing. Without gradients and outside of a compiled graph.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit.
    """
    narrow = narrowed_by_engine(x, gate_up, down)
    x, gate_up, down = (
        autocast_inputs(x, gate_up, down) if narrow is None else (x.float(), gate_up.float(), down.float())
    )
    check_layer(x, weight, gate_up, down, plan, activation=activation, save=save, into=into)
    # nothing is called that would change nothing: at one token every microsecond shows.
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    learns = torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or gate_up.requires_grad or down.requires_grad
    )
    inputs = (
        x.contiguous(),
        weight.contiguous() if weight.dtype == exact else weight.to(exact).contiguous(),
        gate_up.contiguous(),
        down.contiguous(),
    )
    keeps_hidden = learns and save == "hidden"
    if is_wide:
        if learns or is_traced(x, gate_up):
            raise ValueError("is_wide serves inference: call it under torch.no_grad() and outside of torch.compile")
        return _forward(*inputs, plan, activation, False, narrow, is_wide=True)[0]
    if is_traced(x, gate_up):
        buffers = (None, None) if into is None else into
        tensors = (plan.rows, plan.row_of, plan.offsets)
        out, _ = torch.ops.workbench_kernels.moe_mlp(*inputs, *tensors, activation, keeps_hidden, *buffers)
    elif learns:
        out = _MoeMLP.apply(*inputs, plan, activation, keeps_hidden, into, narrow)
    else:
        out, _ = _forward(*inputs, plan, activation, False, narrow)
    result: Tensor = out
    return result


def token_mlp(
    x: Float[Tensor, "1 D"],
    weight: Float[Tensor, "1 K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    *,
    expert: Int[Tensor, "1 K"],
) -> Float[Tensor, "1 D"]:
    """SwiGLU experts of one token, without a plan and without gradients: what decoding at batch 1 needs.

    An expert outside of those that there are adds nothing.
    """
    (x,) = autocast_inputs(x)
    tokens = tokens_of(backend_of(x.device, x.dtype))
    if tokens is not None and gate_up.dtype == down.dtype == x.dtype:
        total: Tensor = tokens.experts(x, weight, gate_up, down, expert)
        return total
    # the few matrices that are used are cast by the products themselves.
    total = torch.zeros_like(x)
    shares = weight.to(x.dtype)
    for slot, index in enumerate(expert[0].tolist()):
        if 0 <= index < len(gate_up):
            gate, up = F.linear(x, gate_up[index]).chunk(2, dim=-1)
            total.addcmul_(F.linear(F.silu(gate) * up, down[index]), shares[:, slot, None])
    return total


class _MoeMLP(torch.autograd.Function):
    """The way without a tracer: the dispatcher of custom operators costs more than small layers do."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gate_up: Tensor,
        down: Tensor,
        plan: RoutingPlan,
        activation: str,
        keeps_hidden: bool,
        into: tuple[Tensor, Tensor] | None,
        narrow: torch.dtype | None,
    ) -> Tensor:
        out, hidden = _forward(x, weight, gate_up, down, plan, activation, keeps_hidden, narrow)
        ctx.save_for_backward(x, weight, gate_up, down, hidden)
        # the buffers are not saved: what others add to them meanwhile is none of backward's business.
        ctx.plan, ctx.activation, ctx.into, ctx.narrow = plan, activation, into, narrow
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:4]
        saved = (grad.contiguous(), *ctx.saved_tensors, ctx.plan, ctx.activation, needs, ctx.into)
        return (*_backward(*saved, ctx.narrow), None, None, None, None, None)


def _forward(
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    plan: RoutingPlan,
    activation: str,
    keeps_hidden: bool,
    narrow: torch.dtype | None = None,
    *,
    is_wide: bool = False,
) -> tuple[Tensor, Tensor]:
    if x.numel() == 0 or plan.num_rows == 0 or down.numel() == 0:
        dtype = torch.promote_types(x.dtype, torch.float32) if is_wide else narrow or x.dtype
        kept = (plan.num_rows, gate_up.shape[1]) if keeps_hidden else (0,)
        return torch.zeros_like(x, dtype=dtype), x.new_empty(kept, dtype=narrow or x.dtype)
    engine = engine_of(backend_of(x.device, narrow or x.dtype))
    options: dict[str, Any] = {} if narrow is None else {"products": narrow}
    out, hidden = engine.forward(
        x, weight, gate_up, down, plan, activation=activation, keeps_hidden=keeps_hidden, is_wide=is_wide, **options
    )
    return out, hidden


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    hidden: Tensor,
    plan: RoutingPlan,
    activation: str,
    needs: tuple[bool, bool, bool, bool],
    into: tuple[Tensor, Tensor] | None,
    narrow: torch.dtype | None = None,
) -> tuple[Tensor | None, ...]:
    inputs = (x, weight, gate_up, down)
    if x.numel() == 0 or plan.num_rows == 0 or down.numel() == 0:
        is_wanted = needs if into is None else (*needs[:2], False, False)
        return tuple(torch.zeros_like(one) if wanted else None for one, wanted in zip(inputs, is_wanted, strict=True))
    engine = engine_of(backend_of(x.device, narrow or x.dtype))
    options: dict[str, Any] = {} if narrow is None else {"products": narrow}
    matrices = (gate_up, down)
    # engines add to both buffers in the dtype of the matrices; the rest is added here.
    is_direct = into is None or (
        needs[2] and needs[3] and all(a.dtype == b.dtype for a, b in zip(into, matrices, strict=True))
    )
    direct = into if is_direct else None
    saved = (grad, *inputs, hidden, plan)
    found = tuple(engine.backward(*saved, activation=activation, needs=needs, into=direct, **options))
    if into is None or is_direct:
        return found
    for buffer, one in zip(into, found[2:], strict=True):
        if one is not None:
            buffer.add_(one)
    return (*found[:2], None, None)


def _forward_op(
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    rows: Tensor,
    row_of: Tensor,
    offsets: Tensor,
    activation: str,
    keeps_hidden: bool,
    into_gate_up: Tensor | None,
    into_down: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return _forward(x, weight, gate_up, down, RoutingPlan(rows, row_of, offsets), activation, keeps_hidden)


def _forward_fake(x: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, rows: Tensor, *rest: Any) -> Any:
    keeps_hidden = rest[3]
    return torch.empty_like(x), x.new_empty((rows.shape[0], gate_up.shape[1]) if keeps_hidden else (0,))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, gate_up, down, rows, row_of, offsets, ctx.activation, _, *into = inputs
    ctx.into = None if into[0] is None else into
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, weight, gate_up, down, output[1], rows, row_of, offsets)


def _through(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    ops, needs = torch.ops.workbench_kernels, list(ctx.needs_input_grad[:4])
    saved = (grad.contiguous(), *ctx.saved_tensors, ctx.activation, needs)
    if ctx.into is None:
        found = ops.moe_mlp_backward(*saved)
    else:
        found = (*ops.moe_mlp_backward_into(*saved, *ctx.into), None, None)
    own = (one if is_needed else None for one, is_needed in zip(found, needs, strict=True))
    return (*own, *(None,) * 7)


def _backward_op(*inputs: Any) -> tuple[Tensor, ...]:
    *tensors, rows, row_of, offsets, activation, needs = inputs
    found = _backward(*tensors, RoutingPlan(rows, row_of, offsets), activation, tuple(needs), None)
    return tuple(tensors[0].new_empty(0) if one is None else one for one in found)


def _backward_fake(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    needs = inputs[-1]
    return tuple(
        torch.empty_like(one) if needed else grad.new_empty(0) for one, needed in zip(inputs[:4], needs, strict=True)
    )


def _backward_into_op(*inputs: Any) -> tuple[Tensor, ...]:
    *tensors, rows, row_of, offsets, activation, needs, into_gate_up, into_down = inputs
    plan, into = RoutingPlan(rows, row_of, offsets), (into_gate_up, into_down)
    found = _backward(*tensors, plan, activation, tuple(needs), into)
    return tuple(tensors[0].new_empty(0) if one is None else one for one in found[:2])


def _backward_into_fake(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return _backward_fake(grad, *inputs[:-2])[:2]


_LIBRARY = torch.library.Library("workbench_kernels", "FRAGMENT")
_TENSORS = "Tensor x, Tensor weight, Tensor gate_up, Tensor down"
_PLAN = "Tensor rows, Tensor row_of, Tensor offsets, str activation"
_BACKWARD = f"(Tensor grad, {_TENSORS}, Tensor hidden, {_PLAN}, bool[] needs"
_LIBRARY.define(
    f"moe_mlp({_TENSORS}, {_PLAN}, bool keeps_hidden, Tensor? into_gate_up, Tensor? into_down) -> (Tensor, Tensor)"
)
_LIBRARY.define(f"moe_mlp_backward{_BACKWARD}) -> (Tensor, Tensor, Tensor, Tensor)")
_LIBRARY.define(f"moe_mlp_backward_into{_BACKWARD}, Tensor(a!) into_gate_up, Tensor(b!) into_down) -> (Tensor, Tensor)")
for _name, _real, _fake in (
    ("moe_mlp", _forward_op, _forward_fake),
    ("moe_mlp_backward", _backward_op, _backward_fake),
    ("moe_mlp_backward_into", _backward_into_op, _backward_into_fake),
):
    _LIBRARY.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"workbench_kernels::{_name}", _fake, lib=_LIBRARY)
torch.library.register_autograd("workbench_kernels::moe_mlp", _through, setup_context=_setup, lib=_LIBRARY)
