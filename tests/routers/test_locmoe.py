"""LocMoE: means of blocks as a gate, and a loss for near experts."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.locmoe import LocMoERouter
from workbench.train.loss import balance

TRAIN, PREFILL = RouteContext(phase="train"), RouteContext(phase="prefill")


def block_matrix(width: int, experts: int) -> torch.Tensor:
    """The gate written out as a dense matrix."""
    rows = torch.zeros(experts, width)
    for expert, block in enumerate(torch.arange(width).tensor_split(experts)):
        rows[expert, block] = 1 / len(block)
    return rows


def test_the_worked_numbers_of_the_card(assert_close):
    routing = LocMoERouter(6, 3)(torch.tensor([[1.0, 3, -2, 0, 4, 8]]), PREFILL)
    assert routing.logit.tolist() == [[2, 0, 6]]
    assert routing.expert.tolist() == [[2]]
    assert_close(routing.weight, torch.tensor([[math.exp(6) / (math.exp(2) + 1 + math.exp(6))]]))


@pytest.mark.parametrize(("width", "experts"), [(6, 3), (32, 8), (13, 4), (5, 5)])
def test_it_is_a_dense_layer_with_a_fixed_block_matrix(width, experts, assert_close):
    x = torch.randn(40, width)
    rows = block_matrix(width, experts)
    routing = LocMoERouter(width, experts)(x, PREFILL)
    assert_close(routing.logit, (x @ rows.T).relu())
    assert_close(routing.prob, (x @ rows.T).relu().softmax(-1))
    assert torch.equal(routing.expert[:, 0], (x @ rows.T).argmax(-1))


def test_the_rows_are_orthogonal_and_of_the_norm_of_the_paper(assert_close):
    rows = LocMoERouter(32, 8)(torch.eye(32), PREFILL).logit.T
    assert_close(rows @ rows.T, torch.eye(8) * 8 / 32)


def test_nothing_of_it_is_trained_and_the_tokens_move():
    router, x = LocMoERouter(32, 8), torch.randn(20, 32, requires_grad=True)
    assert router.state_dict() == {}
    assert list(router.parameters()) == []
    router(x, TRAIN).weight.square().sum().backward()
    assert x.grad.abs().max() > 0


def test_random_tokens_spread_evenly_over_the_experts():
    demand = LocMoERouter(64, 8)(torch.randn(20_000, 64), PREFILL).demand.double()
    chi_square = float(((demand - 2500).square() / 2500).sum())
    # the 99.99th percentile with 7 degrees of freedom.
    assert chi_square < 29.9


def test_a_permutation_inside_a_block_changes_nothing_and_swapped_blocks_swap_experts(assert_close):
    router, x = LocMoERouter(12, 3), torch.randn(100, 12)
    inside = torch.tensor([3, 1, 0, 2, 4, 5, 7, 6, 11, 10, 9, 8])
    here = router(x, PREFILL)
    assert_close(router(x[:, inside], PREFILL).prob, here.prob)
    swapped = router(x.view(100, 3, 4)[:, [1, 0, 2]].flatten(1), PREFILL)
    assert_close(swapped.prob, here.prob[:, [1, 0, 2]])
    assert torch.equal(swapped.expert, torch.tensor([1, 0, 2])[here.expert])


def test_where_no_mean_is_positive_the_mean_before_the_relu_decides():
    routing = LocMoERouter(4, 4)(torch.tensor([[-3.0, -2.0, -1.0, -4.0]]), PREFILL)
    assert routing.prob.tolist() == [[0.25] * 4]
    assert routing.expert.tolist() == [[2]]


def locality(router, x, sequence, rank=0) -> torch.Tensor:
    context = TRAIN.at(sequence=torch.tensor(sequence, dtype=torch.long), data_rank=rank)
    return router.losses(router(x, context), torch.zeros(router.num_experts), None, context)["locality"]


def tokens_with(probabilities) -> torch.Tensor:
    """Tokens of one coordinate per expert whose probabilities are these."""
    return torch.tensor(probabilities).log() + 20


def test_the_divergence_has_the_number_of_the_card(assert_close):
    # one expert per node, so a node's own share is .9: KL((.5, .5) || (.9, .1)) on both nodes.
    router = LocMoERouter(2, 2, nodes=2)
    assert_close(locality(router, tokens_with([[0.5, 0.5]] * 4), [0, 0, 1, 1]), torch.tensor(0.5108256))


def test_it_is_0_exactly_where_every_node_is_local():
    router = LocMoERouter(4, 4, nodes=2)
    own, other = [0.45, 0.45, 0.05, 0.05], [0.05, 0.05, 0.45, 0.45]
    assert abs(float(locality(router, tokens_with([own, other]), [0, 1]))) < 1e-6
    assert locality(router, tokens_with([own, other]), [1, 0]) > 1
    # only the mean over a node's tokens counts, and nodes without tokens do not.
    uneven = [[0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]
    assert abs(float(locality(router, tokens_with(uneven), [0, 2]))) < 1e-6


def test_a_sequence_s_node_moves_with_the_rank():
    router = LocMoERouter(4, 4, nodes=2)
    x = tokens_with([[0.45, 0.45, 0.05, 0.05], [0.05, 0.05, 0.45, 0.45]])
    assert torch.equal(locality(router, x, [1, 2], rank=1), locality(router, x, [0, 1]))
    assert locality(router, x, [0, 1], rank=1) > 1


def test_a_step_along_the_locality_loss_brings_tokens_home():
    router, x = LocMoERouter(32, 8, nodes=2), torch.randn(200, 32)
    sequence = [0] * 100 + [1] * 100

    def share_at_home(tokens) -> float:
        expert = router(tokens, TRAIN).expert[:, 0]
        return float((expert // 4 == torch.tensor(sequence)).double().mean())

    moved = x.clone().requires_grad_()
    locality(router, moved, sequence).backward()
    assert share_at_home(x - 2000 * moved.grad) > share_at_home(x) + 0.1


def test_the_balance_loss_is_switch_s(assert_close):
    routing = LocMoERouter(4, 4)(torch.eye(4), PREFILL)
    assert_close(balance(routing, routing.demand / 4), torch.tensor(1.0))
    assert LocMoERouter(32, 8).loss_weights == {"balance": 0.01, "locality": 0.01}


def test_a_single_node_has_nothing_to_be_near_to():
    assert LocMoERouter(32, 7).nodes == 1
    assert LocMoERouter(32, 8, nodes=1, locality=5.0).loss_weights == {"balance": 0.01, "locality": 0.0}


def test_no_tokens_have_no_locality_loss():
    assert locality(LocMoERouter(8, 4), torch.zeros(0, 8), []) == 0


def test_a_capacity_is_the_larger_of_its_factor_and_the_bound():
    crowd = torch.tensor([[5.0, 0, 0, 0]]).repeat_interleave(8, 1).expand(40, 32)
    assert LocMoERouter(32, 4)(crowd, TRAIN).counts.tolist() == [40, 0, 0, 0]
    assert LocMoERouter(32, 4, capacity_factor=1.25)(crowd, TRAIN).counts.tolist() == [13, 0, 0, 0]
    # ten percent would be 1 slot; the bounds for these cosines are 3 and more than there are tokens.
    assert LocMoERouter(32, 4, capacity_factor=0.1, cosine=0.3)(crowd, TRAIN).counts.tolist() == [3, 0, 0, 0]
    assert LocMoERouter(32, 4, capacity_factor=0.1, cosine=1.0)(crowd, TRAIN).counts.tolist() == [40, 0, 0, 0]
    assert LocMoERouter(32, 4, capacity_factor=1.25)(crowd, PREFILL).counts.tolist() == [40, 0, 0, 0]


@pytest.mark.parametrize(
    ("width", "arguments", "message"),
    [
        (7, {}, "width must be at least 8, got 7; every expert reads a block of its own"),
        (32, {"nodes": 3}, "nodes must divide num_experts=8, got 3; legal values: [1, 2, 4, 8]"),
        (32, {"balance": -1}, "balance must be at least 0, got -1"),
        (32, {"locality": -1}, "locality must be at least 0, got -1"),
        (32, {"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        (32, {"cosine": 2}, "cosine must be between 0 and 1, got 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(width, arguments, message):
    with pytest.raises(ValueError) as error:
        LocMoERouter(width, 8, **arguments)
    assert str(error.value) == message
