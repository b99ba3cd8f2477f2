"""The engine `triton`: forward and backward of the experts in a handful of launches; none waits for the host.

A small layer takes four forward, with its plan, and four backward. From sizes on that were derived and not measured,
where a launch no longer shows, the plan takes two, and the gradients of the two stacks of matrices take one each.
"""

import torch
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor

from workbench_kernels.plan import RoutingPlan
from workbench_kernels.triton.backward import activation_backward
from workbench_kernels.triton.down import combine, combine_backward
from workbench_kernels.triton.down import down as down_rows
from workbench_kernels.triton.grouped_mm import multiply
from workbench_kernels.triton.plan import sort_by_expert
from workbench_kernels.triton.up import up
from workbench_kernels.triton.wgrad import both_weight_gradients, largest_first, weight_gradient

__all__ = ["backward", "forward", "grouped_mm", "grouped_mm_backward", "plan"]


def plan(
    expert: Int[Tensor, "T K"], num_experts: int
) -> tuple[Int32[Tensor, "S"], Int32[Tensor, "T K"], Int32[Tensor, "offsets"]]:
    """Token of each row, row of each slot, first row of each expert."""
    with torch.cuda.device_of(expert):  # type: ignore[no-untyped-call]
        return sort_by_expert(expert, num_experts)


def forward(
    x: Float[Tensor, "T D"],
    weight: Float32[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    plan: RoutingPlan,
    *,
    activation: str,
    keeps_hidden: bool,
    is_wide: bool = False,
) -> tuple[Float[Tensor, "T D"], Tensor]:
    """Each token's weighted sum of its experts, and the pre-activations, empty unless they are kept."""
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        hidden, activated = up(
            x,
            gate_up,
            plan.rows,
            plan.offsets,
            activation=activation,
            keeps_hidden=keeps_hidden,
            keeps_activated=True,
        )
        assert activated is not None
        rows = down_rows(activated, down, plan.offsets)
        # rows are rounded before they are summed here, so a wide sum starts from what a narrow one starts from.
        out = combine(rows, plan.row_of, weight, dtype=torch.float32 if is_wide else None)
    return out, torch.empty(0, dtype=x.dtype, device=x.device) if hidden is None else hidden


def backward(
    grad: Float[Tensor, "T D"],
    x: Float[Tensor, "T D"],
    weight: Float32[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    hidden: Tensor,
    plan: RoutingPlan,
    *,
    activation: str,
    needs: tuple[bool, bool, bool, bool],
    into: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the tokens, the weights and the two stacks of matrices, None where not needed.

    Args:
        hidden: the pre-activations; if empty they are made again.
        needs: which of the four are needed.
        into: gradients of the two stacks to add to; then None is returned for them.
    """
    needs_x, needs_weight, needs_gate_up, needs_down = needs
    rows, offsets = plan.rows, plan.offsets
    into_gate_up, into_down = into or (None, None)
    both = grad_rows = None
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        if hidden.numel() == 0:
            hidden = _hidden_again(x, gate_up, plan, activation)
        grad_hidden, scaled, partial = activation_backward(
            grad,
            down,
            hidden,
            rows=rows,
            row_of=plan.row_of,
            offsets=offsets,
            weight=weight,
            activation=activation,
            needs=(needs_x or needs_gate_up, needs_down, needs_weight),
        )
        if needs_gate_up and needs_down and scaled is not None and grad_hidden is not None:
            both = both_weight_gradients(grad, scaled, grad_hidden, x, rows=rows, offsets=offsets, into=into)
        grad_gate_up, grad_down = both or (None, None)
        order = largest_first(offsets) if both is None and (needs_gate_up or needs_down) else None
        if both is None and needs_down and scaled is not None:
            grad_down = weight_gradient(grad, scaled, offsets, rows=rows, gathers="left", order=order, into=into_down)
        del scaled
        if both is None and needs_gate_up and grad_hidden is not None:
            grad_gate_up = weight_gradient(
                grad_hidden, x, offsets, rows=rows, gathers="right", order=order, into=into_gate_up
            )
        if needs_x and grad_hidden is not None:
            grad_rows = multiply(
                grad_hidden, gate_up, offsets, transposes=True, zeros_rest=False, kernel="tokens_backward"
            )
        grad_x, grad_weight = combine_backward(grad_rows, plan.row_of, partial)
    return grad_x, grad_weight, grad_gate_up, grad_down


def _hidden_again(x: Tensor, gate_up: Tensor, plan: RoutingPlan, activation: str) -> Tensor:
    hidden, _ = up(x, gate_up, plan.rows, plan.offsets, activation=activation, keeps_hidden=True, keeps_activated=False)
    assert hidden is not None
    return hidden


def grouped_mm(
    rows: Float[Tensor, "N I"], weight: Float[Tensor, "E O I"], offsets: Int32[Tensor, "offsets"]
) -> Float[Tensor, "N O"]:
    """Every expert's rows times its own matrix; zeros in rows past the last expert's."""
    with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
        return multiply(rows, weight, offsets)


def grouped_mm_backward(
    grad: Float[Tensor, "N O"],
    rows: Float[Tensor, "N I"],
    weight: Float[Tensor, "E O I"],
    offsets: Int32[Tensor, "offsets"],
    needs: tuple[bool, bool],
) -> tuple[Float[Tensor, "N I"] | None, Float[Tensor, "E O I"] | None]:
    """Gradients of the rows and of the matrices, None where not needed."""
    with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
        grad_rows = multiply(grad, weight, offsets, transposes=True) if needs[0] else None
        grad_weight = weight_gradient(grad, rows, offsets, order=largest_first(offsets)) if needs[1] else None
        return grad_rows, grad_weight
