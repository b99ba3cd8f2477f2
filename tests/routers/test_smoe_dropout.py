"""SMoE-Dropout: a frozen gate and a growing number of experts."""

import pytest
import torch

from workbench.core import RouteContext, SparseRouting
from workbench.experts.mlp import MLPExperts
from workbench.routers.smoe_dropout import SMoEDropoutRouter


@pytest.fixture
def plain(with_logits):
    """A router whose logits are its input."""

    def build(experts: int, **arguments) -> SMoEDropoutRouter:
        router = with_logits(SMoEDropoutRouter, experts, **arguments)
        router.gate.bias.zero_()
        return router

    return build


def test_weights_and_input_gradients_are_those_of_the_official_gate(assert_close, dense_weights):
    router = SMoEDropoutRouter(3, 4, eval_top_k=2)
    weight = [[0.5, -0.25, 1.0], [-1.0, 0.5, 0.25], [0.0, -0.75, 0.5], [0.25, 0.25, -0.5]]
    router.gate.weight.copy_(torch.tensor(weight))
    router.gate.bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    x = torch.tensor([[1.0, -2.0, 0.5], [0.25, 0.5, -1.0]], requires_grad=True)
    weights = dense_weights(router(x, RouteContext()))
    assert_close(weights, torch.tensor([[0.3893608, 0, 0.6106392, 0], [0, 0.2427796, 0, 0.7572203]]))
    (weights * torch.arange(8.0).view(2, 4)).sum().backward()
    expected = [[-0.2377590, -0.2377590, -0.2377590], [0.4595942, -0.0919188, -0.2757566]]
    assert_close(x.grad, torch.tensor(expected))


def test_nothing_of_it_is_ever_trained():
    router = SMoEDropoutRouter(8, 4)
    assert list(router.parameters()) == []
    assert set(router.state_dict()) == {"gate.weight", "gate.bias"}
    before = {name: tensor.clone() for name, tensor in router.state_dict().items()}
    x = torch.randn(20, 8, requires_grad=True)
    router(x, RouteContext(phase="train", num_steps=10)).weight.square().sum().backward()
    assert x.grad.abs().max() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in router.state_dict().items())
    assert not router.gate.weight.requires_grad


def test_each_router_draws_its_own_gate():
    assert not torch.equal(SMoEDropoutRouter(8, 4).gate.weight, SMoEDropoutRouter(8, 4).gate.weight)


@pytest.mark.parametrize(("step", "experts"), [(0, 4), (25, 5), (50, 6), (99, 8)])
def test_the_number_of_experts_grows_during_training(step, experts):
    router = SMoEDropoutRouter(16, 8)
    routing = router(torch.randn(5, 16), RouteContext(phase="train", step=step, num_steps=100))
    assert routing.top_k == experts


def test_with_all_experts_the_weights_are_the_softmax_over_all(plain, dense_weights, assert_close):
    logits = torch.randn(50, 8)
    assert_close(dense_weights(plain(8)(logits, RouteContext())), logits.softmax(-1))


def test_a_single_expert_weighs_1_and_moves_nothing(plain):
    x = torch.randn(50, 8, requires_grad=True)
    weight = plain(8, eval_top_k=1)(x, RouteContext()).weight
    assert (weight == 1).all()
    weight.sum().backward()
    assert x.grad.abs().max() == 0


def test_fewer_experts_are_the_first_of_more_and_weights_sum_to_1(assert_close):
    router, x = SMoEDropoutRouter(16, 8), torch.randn(100, 16)
    whole = router(x, RouteContext()).expert
    for experts in range(1, 9):
        part = SMoEDropoutRouter(16, 8, eval_top_k=experts)
        part.load_state_dict(router.state_dict())
        routing = part(x, RouteContext())
        assert torch.equal(routing.expert, whole[:, :experts])
        assert_close(routing.weight.sum(-1), torch.ones(100))


def test_a_sliced_dense_layer_is_the_sum_of_the_slices_with_weight_1_and_not_the_mixture(assert_close):
    experts, x = MLPExperts(8, 4, hidden=6), torch.randn(10, 8)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    everyone = torch.arange(4).expand(10, 4)
    total = experts(x, SparseRouting.from_topk(everyone, torch.ones(10, 4), num_experts=4), RouteContext())
    even = experts(x, SparseRouting.from_topk(everyone, torch.full((10, 4), 0.25), num_experts=4), RouteContext())
    assert_close(even, total / 4)
    mixed = SMoEDropoutRouter(8, 4)(x, RouteContext()).apply(x, experts, RouteContext())
    assert (mixed - total).abs().max() > 0.5 * total.abs().max()


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError) as error:
        SMoEDropoutRouter(8, 4, min_top_k=5)
    assert str(error.value) == "min_top_k must be between 1 and 4, got 5; it is where the growth to max_top_k starts"
