"""SMILE: a node, then a device on it."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.smile import SmileRouter
from workbench.routers.switch import SwitchRouter

TRAIN, PREFILL = RouteContext(phase="train"), RouteContext(phase="prefill")


@pytest.fixture
def two_gates():
    """A router whose first coordinates are the logits of the nodes and whose last are those of the devices."""

    def build(nodes: int, devices: int, **arguments) -> SmileRouter:
        router = SmileRouter(nodes + devices, nodes * devices, nodes=nodes, **arguments)
        both = torch.eye(nodes + devices)
        router.node_gate.weight.data, router.device_gate.weight.data = both[:nodes], both[nodes:]
        return router

    return build


def test_the_score_of_an_expert_is_the_product_of_its_node_and_its_device(two_gates, assert_close):
    x = torch.tensor([[0.7, 0.3, 0.2, 0.5, 0.3]]).log()
    routing = two_gates(2, 3)(x, PREFILL)
    assert_close(routing.prob, torch.tensor([[0.14, 0.35, 0.21, 0.06, 0.15, 0.09]]))
    assert_close(routing.logit.softmax(-1), routing.prob)
    assert routing.expert.tolist() == [[1]]
    assert_close(routing.weight, torch.tensor([[0.35]]))


def test_the_best_product_is_the_best_device_of_the_best_node(two_gates, assert_close):
    x = torch.randn(500, 12)
    routing = two_gates(4, 8)(x, PREFILL)
    assert torch.equal(routing.expert[:, 0], x[:, :4].argmax(-1) * 8 + x[:, 4:].argmax(-1))
    assert torch.equal(routing.expert[:, 0], routing.prob.argmax(-1))
    assert_close(routing.weight[:, 0], x[:, :4].softmax(-1).amax(-1) * x[:, 4:].softmax(-1).amax(-1))


@pytest.mark.parametrize(("nodes", "gate"), [(1, "device_gate"), (8, "node_gate")])
def test_a_single_node_or_a_single_device_is_switch(assert_close, nodes, gate):
    x, router, switch = torch.randn(50, 16), SmileRouter(16, 8, nodes=nodes), SwitchRouter(16, 8)
    router.get_submodule(gate).weight.data = switch.gate.weight.data.clone()
    here, there = router(x, PREFILL), switch(x, PREFILL)
    assert torch.equal(here.expert, there.expert)
    assert_close(here.weight, there.weight)
    assert_close(here.prob, there.prob)
    losses = router.losses(here, torch.zeros(8), None, PREFILL)
    constant = losses["node_balance" if nodes == 1 else "device_balance"]
    assert_close(constant, torch.tensor(1.0))


def test_two_gates_have_few_weights():
    assert sum(p.numel() for p in SmileRouter(20, 32, nodes=4).parameters()) == 12 * 20
    assert sum(p.numel() for p in SwitchRouter(20, 32).parameters()) == 32 * 20


def losses_of(router, x) -> dict[str, float]:
    values = router.losses(router(x, PREFILL), torch.zeros(router.num_experts), None, PREFILL)
    return {name: float(value.detach()) for name, value in values.items()}


def test_even_counts_over_an_even_gate_give_1_and_1(two_gates):
    x = 1e-4 * torch.cat((torch.eye(2).repeat_interleave(2, 0), torch.eye(2).repeat(2, 1)), dim=1)
    losses = losses_of(two_gates(2, 2), x)
    assert losses == pytest.approx({"node_balance": 1, "device_balance": 1}, abs=1e-6)
    assert SmileRouter(8, 4).loss_weights == {"node_balance": 0.005, "device_balance": 0.005}


def test_the_loss_over_nodes_is_that_of_shares_and_probabilities(two_gates):
    # shares (3/4, 1/4), mean probabilities (.6, .4).
    first = [0.7, 0.7, 0.6, 0.4]
    x = torch.tensor([[p, 1 - p, 0.5, 0.5] for p in first]).log()
    assert losses_of(two_gates(2, 2), x)["node_balance"] == pytest.approx(1.1, abs=1e-6)


def test_both_losses_can_be_even_while_half_of_the_experts_idle(two_gates):
    x = torch.tensor([[9.0, 0, 9, 0]] * 10 + [[0, 9.0, 0, 9]] * 10)
    router = two_gates(2, 2)
    assert router(x, PREFILL).demand.tolist() == [10, 0, 0, 10]
    assert losses_of(router, x) == pytest.approx({"node_balance": 1, "device_balance": 1}, abs=1e-5)


def test_a_node_s_buffer_drops_first_and_then_the_devices_share_what_arrived(two_gates):
    # 12 tokens, factor 1: 6 places on each node. 8 ask for node 0, of which 6 arrive: 3 slots per device.
    nodes = [0] * 8 + [1] * 4
    devices = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    x = torch.cat((torch.eye(2)[nodes], torch.eye(2)[devices]), dim=1)
    routing = two_gates(2, 2, capacity_factor=1.0)(x, TRAIN)
    assert routing.demand.tolist() == [5, 3, 0, 4]
    arrived = routing.loss_inputs["arrived"][:, 0]
    assert arrived.tolist() == [True] * 6 + [False] * 2 + [True] * 4
    # node 0: devices 0 0 0 0 0 1, so two of device 0 are dropped; node 1: four of device 1 and 2 slots.
    assert routing.kept[:, 0].tolist() == [True] * 3 + [False] * 2 + [True] + [False] * 2 + [True] * 2 + [False] * 2
    assert routing.counts.tolist() == [3, 1, 0, 2]
    assert int(routing.demand.sum()) == int(routing.counts.sum()) + int((~arrived).sum()) + 4
    assert (routing.weight[~routing.kept] == 0).all()


def test_only_what_arrived_counts_in_the_loss_over_devices(two_gates, assert_close):
    x = torch.cat((torch.eye(2)[[0] * 8 + [1] * 4], torch.eye(2)[[0] * 5 + [1] * 7]), dim=1)
    router = two_gates(2, 2, capacity_factor=1.0)
    losses = router.losses(router(x, TRAIN), torch.zeros(4), None, TRAIN)
    prob = torch.eye(2).softmax(-1)
    nodes = 2 * (torch.tensor([8, 4]) / 12 * prob[[0] * 8 + [1] * 4].mean(0)).sum()
    devices = 2 * (torch.tensor([5, 5]) / 10 * prob[[0] * 5 + [1] * 5].mean(0)).sum()
    assert_close(losses["node_balance"], nodes)
    assert_close(losses["device_balance"], devices)


def test_prefill_and_decode_drop_nothing_and_a_wide_buffer_neither(two_gates):
    x = torch.tensor([[1.0, 0, 1, 0]]).expand(50, 4)
    for phase in ("prefill", "decode"):
        assert two_gates(2, 2)(x, RouteContext(phase=phase)).counts.tolist() == [50, 0, 0, 0]
    # a factor of 1 makes a node's buffer 25 and gives its devices 13 each.
    for phase in ("train", "eval"):
        assert two_gates(2, 2)(x, RouteContext(phase=phase)).counts.tolist() == [50, 0, 0, 0]
        assert two_gates(2, 2, capacity_factor=1.0)(x, RouteContext(phase=phase)).counts.tolist() == [13, 0, 0, 0]


def test_gradients_reach_both_gates_from_the_weight_and_from_each_loss():
    router, x = SmileRouter(16, 8), torch.randn(40, 16) + 1
    for loss, silent in (
        (lambda r: r.weight.square().sum(), None),
        (lambda r: router.losses(r, torch.zeros(8), None, TRAIN)["node_balance"], "device_gate.weight"),
        (lambda r: router.losses(r, torch.zeros(8), None, TRAIN)["device_balance"], "node_gate.weight"),
    ):
        router.zero_grad()
        loss(router(x, TRAIN)).backward()
        for name, parameter in router.named_parameters():
            largest = 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
            assert largest < 1e-6 if name == silent else largest > 1e-5, name


def test_a_bias_of_a_person_can_send_a_token_to_any_expert(two_gates):
    x = torch.tensor([[1.0, 0, 1, 0]])
    for expert in range(4):
        bias = torch.zeros(4)
        bias[expert] = 5
        assert two_gates(2, 2)(x, PREFILL.at(bias=bias)).expert.tolist() == [[expert]]


def test_no_tokens_have_no_losses():
    router = SmileRouter(8, 4)
    losses = router.losses(router(torch.zeros(0, 8), TRAIN), torch.zeros(4), None, TRAIN)
    assert {name: float(value.detach()) for name, value in losses.items()} == {"node_balance": 0, "device_balance": 0}


@pytest.mark.parametrize(("experts", "nodes"), [(1, 1), (4, 2), (7, 1), (8, 2), (16, 4)])
def test_the_usual_number_of_nodes_fits_any_number_of_experts(experts, nodes):
    assert SmileRouter(8, experts).nodes == nodes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 3}, "nodes must divide num_experts=8, got 3; legal values: [1, 2, 4, 8]"),
        ({"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        ({"node_balance": -1}, "node_balance must be at least 0, got -1"),
        ({"device_balance": -1}, "device_balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        SmileRouter(8, 8, **arguments)
    assert str(error.value) == message
