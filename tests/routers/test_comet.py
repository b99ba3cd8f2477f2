"""COMET: soft trees over the experts, and the search for their order."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.comet import CometRouter

TRAIN = RouteContext(phase="train")


def ramp(*shape: int) -> torch.Tensor:
    return (torch.arange(math.prod(shape), dtype=torch.float64) * 0.7).sin().view(*shape).float()


def fed(nodes, leaves, num_experts: int, **arguments) -> tuple[CometRouter, torch.Tensor]:
    """A router and the one token whose node and leaf outputs are the given ones, tree after tree."""
    wanted = torch.tensor([*nodes, *leaves], dtype=torch.float32)
    router = CometRouter(len(wanted), num_experts, trees=len(nodes) // (num_experts - 1), **arguments)
    router.nodes.weight.data, router.leaves.weight.data = torch.eye(len(wanted)).split([len(nodes), len(leaves)])
    router.nodes.bias.data.zero_(), router.leaves.bias.data.zero_()
    return router, wanted.unsqueeze(0)


def test_the_worked_case_of_a_soft_root_and_a_hard_tree(dense_weights, assert_close):
    router, x = fed([0.25, 0.5, -0.5, -0.5, 0.0, 0.5], [0, 1, 2, 3, 0.5, 0, 1, 0], 4)
    routing = router(x, TRAIN)
    assert_close(routing.loss_inputs["leaf"][0, 0], torch.tensor([0.84375, 0, 0, 0.15625]))
    assert_close(routing.loss_inputs["leaf"][0, 1], torch.tensor([0.0, 0, 1, 0]))
    expected = torch.tensor([[0.12593, 0.0, 0.40569, 0.46838]])
    assert_close(dense_weights(routing), expected)
    assert routing.demand.tolist() == [1, 0, 1, 1]
    assert router.losses(routing, torch.zeros(4), None, TRAIN)["entropy"].item() == pytest.approx(0.4334, abs=1e-4)


def test_two_hard_trees_share_by_their_leaf_scores_and_cost_no_entropy(dense_weights, assert_close):
    # left then right is leaf 1, right then left is leaf 2.
    router, x = fed([1, -1, 0, -1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1], 4)
    routing = router(x, TRAIN)
    assert_close(dense_weights(routing), torch.tensor([[0.0, 0.5, 0.5, 0.0]]))
    assert abs(router.losses(routing, torch.zeros(4), None, TRAIN)["entropy"].item()) < 1e-5


def test_trees_on_the_same_expert_merge():
    router, x = fed([1, 1, 0, 1, 1, 0], [0, 0, 0, 0, 5, 0, 0, 0], 4)
    routing = router(x, TRAIN)
    assert routing.expert.tolist() == [[0]]
    assert routing.weight.tolist() == [[1.0]]


def test_values_and_gradients_of_the_published_equations(dense_weights):
    # computed with the published TensorFlow code written out in float64; 5 experts, so leaves on two depths.
    router = CometRouter(3, 5)
    router.nodes.weight.data, router.leaves.weight.data = 0.3 * ramp(8, 3), ramp(10, 3).flip(0)
    router.nodes.bias.data.zero_(), router.leaves.bias.data.zero_()
    x = ramp(4, 3).requires_grad_()
    routing = router(x, TRAIN)
    weights = dense_weights(routing)
    entropy = router.losses(routing, torch.zeros(5), None, TRAIN)["entropy"]
    expected = [
        [0.6024827, 0.0163695, 0.1963201, 0.169516, 0.0153117],
        [0.3133118, 0.0694503, 0.3035765, 0.142872, 0.1707894],
        [0.019218, 0.139423, 0.0263134, 0.4373426, 0.3777031],
        [0.6115124, 0.0143049, 0.1932778, 0.1672207, 0.0136841],
    ]
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert entropy.item() == pytest.approx(1.5661469, abs=1e-6)
    ((weights * ramp(4, 5)).sum() + 0.1 * entropy).backward()
    of_tokens = [
        [-0.1787631, -0.2803444, -0.2500754],
        [-0.029329, -0.0771456, -0.0886794],
        [0.282806, 0.2904206, 0.1614459],
        [-0.1038845, -0.2395932, -0.2626175],
    ]
    of_nodes = [[-1.3806669, -1.5527129, -0.9944939], [-0.1415379, -1.2786949, -1.8144617]]
    torch.testing.assert_close(x.grad, torch.tensor(of_tokens))
    torch.testing.assert_close(router.nodes.weight.grad[:2], torch.tensor(of_nodes))


@pytest.mark.parametrize("num_experts", [2, 3, 5, 8, 16])
def test_weights_sum_to_one_for_any_number_of_experts(num_experts, dense_weights, assert_close):
    weights = dense_weights(CometRouter(32, num_experts)(torch.randn(50, 32), TRAIN))
    assert_close(weights.sum(-1), torch.ones(50))


@pytest.mark.parametrize("width", [32, 512])
def test_a_fresh_router_is_alive_and_looks_at_the_token(width):
    router = CometRouter(width, 8)
    leaf = router(torch.randn(200, width), TRAIN).loss_inputs["leaf"]
    assert (leaf > 0).all()
    assert leaf.std(0).min() > 1e-3


@pytest.mark.parametrize("trees", [1, 2, 3])
def test_hard_nodes_leave_as_many_experts_as_trees(trees):
    router = CometRouter(32, 8, trees=trees)
    router.nodes.weight.data *= 1e9
    routing = router(torch.randn(200, 32), TRAIN)
    active = (routing.expert >= 0).sum(-1)
    assert 1 <= int(active.min()) <= int(active.max()) == trees


def test_a_saturated_node_gets_exactly_no_gradient():
    router, x = fed([0.7, 0.1, 0.2], [0.0, 1, 2, 3], 4)
    routing = router(x, TRAIN)
    (routing.prob.square().sum() + router.losses(routing, torch.zeros(4), None, TRAIN)["entropy"]).backward()
    moved = router.nodes.weight.grad.abs().amax(-1)
    assert moved[0] == 0
    assert moved[1] > 0


def test_the_search_only_renames_experts_once_it_is_over(dense_weights, assert_close):
    plain, searched = CometRouter(32, 8), CometRouter(32, 8, search_steps=2)
    searched.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(40, 32)
    soft = searched(x, TRAIN)
    assert soft.loss_inputs["order"].requires_grad
    for _ in range(2):
        searched.update(())
    routing = searched(x, TRAIN)
    expected = dense_weights(plain(x, TRAIN))
    order = searched.permutation.order[0]
    assert order.tolist() != list(range(8))
    assert_close(dense_weights(routing)[:, order], expected)
    assert not routing.loss_inputs["order"].requires_grad


def test_the_search_has_its_own_loss_and_teaches_its_scores():
    router = CometRouter(32, 8, search_steps=5, separate_orders=True)
    assert router.permutation.score.shape == (2, 8, 8)
    routing = router(torch.randn(40, 32), TRAIN)
    losses = router.losses(routing, torch.zeros(8), None, TRAIN)
    assert router.loss_weights == {"entropy": 0.01, "search": 1e-4}
    assert losses["search"] > 0.1
    (routing.prob.square().sum() + losses["search"]).backward()
    assert router.permutation.score.grad.abs().max() > 0
    assert CometRouter(32, 8).loss_weights["search"] == 0


@pytest.mark.parametrize(
    ("num_experts", "arguments", "message"),
    [
        (1, {}, "num_experts must be at least 2, got 1"),
        (8, {"trees": 0}, "trees must be at least 1, got 0"),
        (8, {"width_of_step": 0}, "width_of_step must be at least 1e-06, got 0"),
        (8, {"entropy": -1}, "entropy must be at least 0, got -1"),
        (8, {"search_steps": -1}, "search_steps must be at least 0, got -1"),
        (8, {"search": -1}, "search must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(num_experts, arguments, message):
    with pytest.raises(ValueError) as error:
        CometRouter(8, num_experts, **arguments)
    assert str(error.value) == message
