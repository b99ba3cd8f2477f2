"""RMoE: a recurrent state over layers."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.rmoe import Cell, RMoERouter

KINDS = ("gru", "rnn", "detached", "reset")


def ramp(*shape: int) -> torch.Tensor:
    return (torch.arange(math.prod(shape), dtype=torch.float64) * 0.7).sin().view(*shape).float()


def stack(depth: int, recurrence: str = "gru", *, width: int = 12, state_width: int = 6):
    """Routers of so many layers with their cell, all weights large enough to matter."""
    routers = [
        RMoERouter(width, 8, layer=layer, state_width=state_width, recurrence=recurrence) for layer in range(depth)
    ]
    cell = routers[0].shared_part()
    for parameter in (p for module in (*routers, cell) for p in module.parameters()):
        torch.nn.init.normal_(parameter, std=0.7)
    return routers, cell


def through(routers, cell, tokens, **fields):
    """The decisions of all layers, one above the other, over constant tokens of each."""
    routings = [None]
    for router, x in zip(routers, tokens, strict=True):
        routings.append(router(x, RouteContext(shared=cell, previous=routings[-1], **fields)))
    return routings[1:]


def test_the_scalar_cell_by_hand(assert_close):
    cell = Cell(1, is_gated=True)
    for matrix in (cell.from_input, cell.from_state):
        matrix.data.fill_(1)
    once = cell(torch.ones(1, 1), torch.zeros(1, 1))
    assert_close(once, torch.tensor([[0.204824]]))
    assert_close(cell(torch.ones(1, 1), once), torch.tensor([[0.346753]]))


@pytest.mark.parametrize(("is_gated", "reference"), [(True, torch.nn.GRUCell), (False, torch.nn.RNNCell)])
def test_the_cell_is_that_of_torch(is_gated, reference, assert_close):
    cell, other = Cell(5, is_gated=is_gated), reference(5, 5)
    other.load_state_dict(
        dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), cell.state_dict().values(), strict=True))
    )
    x, state = torch.randn(7, 5), torch.randn(7, 5)
    assert_close(cell(x, state), other(x, state))


def test_values_and_gradients_of_the_published_code():
    # computed with the published cell in float64 over two layers.
    routers = [RMoERouter(3, 4, layer=layer, state_width=2) for layer in (0, 1)]
    cell = routers[0].shared_part()
    routers[0].projector.weight.data, routers[1].projector.weight.data = ramp(2, 3), ramp(2, 3).flip(0)
    routers[0].gate.weight.data = routers[1].gate.weight.data = 3 * ramp(4, 2)
    cell.from_input.data, cell.from_state.data = ramp(6, 2), ramp(6, 2).flip(0)
    cell.input_bias.data, cell.state_bias.data = 0.1 * ramp(6), 0.2 * ramp(6)
    _, above = through(routers, cell, [ramp(3, 3), ramp(3, 3).flip(0)])
    logit = [
        [0.4962998, 1.0664306, -0.1337834, -1.1119082],
        [0.9881184, 1.1090526, -0.6111134, -1.316791],
        [1.0548544, 2.384106, -0.244415, -2.467191],
    ]
    torch.testing.assert_close(above.logit, torch.tensor(logit))
    assert above.expert.tolist() == [[1, 0]] * 3
    weight = [[0.6387934, 0.3612066], [0.5301968, 0.4698032], [0.7907168, 0.2092832]]
    torch.testing.assert_close(above.weight, torch.tensor(weight))
    (above.weight * ramp(3, 2)).sum().backward()
    below = [[0.0475088, 0.0208862, -0.0155595], [0.0084863, -0.0667742, -0.1106298]]
    own = [[-0.1203878, -0.1844005, -0.1616868], [0.0298296, 0.0533341, 0.0517548]]
    torch.testing.assert_close(routers[0].projector.weight.grad, torch.tensor(below))
    torch.testing.assert_close(routers[1].projector.weight.grad, torch.tensor(own))


def test_the_parameters_are_those_of_the_paper():
    router = RMoERouter(352, 16)
    assert router.state_width == 128
    assert sum(p.numel() for p in router.shared_part().parameters()) == 6 * 128**2 + 6 * 128
    assert sum(p.numel() for p in router.parameters()) == 128 * 352 + 16 * 128


def test_one_layer_is_a_router_of_two_stages(assert_close):
    (router,), cell = stack(1)
    x = torch.randn(20, 12)
    (routing,) = through([router], cell, [x])
    state = cell(x @ router.projector.weight.t(), torch.zeros(20, 6))
    assert_close(routing.prob, (state @ router.gate.weight.t()).softmax(-1))
    assert torch.equal(routing.carry, state)


@pytest.mark.parametrize("recurrence", KINDS)
def test_the_gradient_of_the_last_layer_reaches_the_first_only_through_a_live_state(recurrence):
    routers, cell = stack(3, recurrence)
    routings = through(routers, cell, torch.randn(3, 20, 12))
    routings[-1].weight.square().sum().backward()
    gradient = routers[0].projector.weight.grad
    reaches = gradient is not None and bool(gradient.abs().max() > 0)
    assert reaches is (recurrence in {"gru", "rnn"})


@pytest.mark.parametrize("recurrence", KINDS)
def test_the_state_below_matters_unless_it_is_not_passed(recurrence):
    routers, cell = stack(2, recurrence)
    tokens = torch.randn(2, 20, 12)
    before = through(routers, cell, tokens)[1].logit
    routers[0].projector.weight.data.mul_(-1)
    assert torch.equal(before, through(routers, cell, tokens)[1].logit) is (recurrence == "reset")


def test_detached_and_live_states_decide_the_same():
    live, cell = stack(2)
    cut, _ = stack(2, "detached")
    tokens = torch.randn(2, 20, 12)
    for one, other in zip(live, cut, strict=True):
        other.load_state_dict(one.state_dict())
    assert torch.equal(through(live, cell, tokens)[1].weight, through(cut, cell, tokens)[1].weight)


def test_a_closed_update_gate_keeps_the_state_of_the_layer_below(assert_close):
    routers, cell = stack(2)
    first = through(routers, cell, torch.randn(2, 20, 12))[0]
    cell.input_bias.data[6:12] = 1e3
    second = routers[1](torch.randn(20, 12), RouteContext(shared=cell, previous=first))
    assert_close(second.carry, first.carry)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"state_width": 0}, "state_width must be at least 1, got 0"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
        ({"z": -1}, "z must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        RMoERouter(8, 8, **arguments)
    assert str(error.value) == message
