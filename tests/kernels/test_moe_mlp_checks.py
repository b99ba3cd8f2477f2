"""What does not fit together is refused, with what was expected, what came and what to do."""

import pytest
import torch
from workbench_kernels import plan_routing
from workbench_kernels.moe_mlp_checks import check_layer

PLAN = plan_routing.__wrapped__(torch.zeros(3, 2, dtype=torch.long), 4)
FITTING = {
    "x": torch.ones(3, 6),
    "weight": torch.ones(3, 2),
    "gate_up": torch.ones(4, 10, 6),
    "down": torch.ones(4, 6, 5),
    "plan": PLAN,
    "activation": "silu",
    "save": "hidden",
    "into": None,
}
check = check_layer.__wrapped__


def buffers(dtype=torch.float32, **options):
    return torch.ones(4, 10, 6, dtype=dtype, **options), torch.ones(4, 6, 5, dtype=dtype)


def refused(**changes) -> str:
    arguments = FITTING | changes
    tensors = [arguments.pop(name) for name in ("x", "weight", "gate_up", "down", "plan")]
    with pytest.raises(ValueError) as error:
        check(*tensors, **arguments)
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight": torch.ones(3, 2, dtype=torch.bfloat16)},
        {"into": buffers()},
        {"save": "input", "activation": "gelu_tanh"},
    ],
)
def test_what_fits_is_let_through(changes):
    arguments = FITTING | changes
    tensors = [arguments.pop(name) for name in ("x", "weight", "gate_up", "down", "plan")]
    check(*tensors, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.ones(1, 3, 6)},
            (
                "x, weight, gate_up and down must have 2, 2, 3 and 3 dimensions, got 3, 2, 3 and 3; "
                "flatten tokens to one row each"
            ),
        ),
        (
            {"x": torch.ones(3, 6).bfloat16()},
            "x, gate_up and down must have one dtype, got bfloat16, float32, float32; cast them, or use torch.autocast",
        ),
        (
            {"weight": torch.ones(3, 2, dtype=torch.long)},
            "x and weight must be floating point, got float32, int64; cast them",
        ),
        (
            {"gate_up": torch.ones(4, 6, 10)},
            (
                "x, gate_up and down must be T x D, E x 2F x D and E x D x F, got (3, 6), (4, 6, 10) and (4, 6, 5); "
                "transpose the matrices if theirs are the other way round"
            ),
        ),
        (
            {"gate_up": torch.ones(5, 10, 6), "down": torch.ones(5, 6, 5)},
            "the plan must be of the 5 experts that gate_up holds, got one of 4; pass that number to plan_routing",
        ),
        (
            {"x": torch.ones(2, 6)},
            (
                "x and weight must have the plan's 3 tokens and 2 slots, got x (2, 6) and weight (3, 2); "
                "plan the same tokens"
            ),
        ),
        (
            {"down": torch.ones(4, 6, 5, device="meta")},
            (
                "x, weight, gate_up, down and the plan must be on one device, got cpu, cpu, cpu, meta, cpu; "
                "move them to that of x"
            ),
        ),
        ({"activation": "swish"}, "activation must be one of silu, gelu, gelu_tanh, relu, got 'swish'"),
        ({"save": "x"}, "save must be hidden (faster) or input (less memory), got 'x'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    assert refused(**changes) == message


@pytest.mark.parametrize(
    "into",
    [
        buffers(torch.float64),
        buffers(requires_grad=True),
        tuple(buffer.transpose(1, 2) for buffer in buffers()),
        buffers()[::-1],
    ],
)
def test_buffers_that_do_not_fit_are_refused(into):
    message = refused(into=into)
    assert message.startswith("into must hold contiguous buffers like gate_up and down, in their dtype or float32, got")
    assert message.endswith("torch.zeros_like(gate_up) would do")
