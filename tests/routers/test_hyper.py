"""HyperRouter: a gate written by a frozen network from one trained vector."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.hyper import HyperRouter
from workbench.routers.smoe_dropout import SMoEDropoutRouter

PREFILL = RouteContext(phase="prefill")


def test_weights_and_gradients_are_those_of_the_official_gate(assert_close, dense_weights):
    router = HyperRouter(2, 3, hyper_width=2, eval_top_k=2)
    router.embedding.data = torch.tensor([1.0, -0.5])
    router.inner.weight.copy_(torch.tensor([[0.5, -1.0], [0.25, 1.0]]))
    router.inner.bias.copy_(torch.tensor([0.1, 0.5]))
    router.outer.weight.copy_(((torch.arange(18.0) * 7 % 11 - 5) / 10).view(9, 2))
    router.outer.bias.copy_((torch.arange(9.0) * 5 % 7 - 3) / 10)
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], requires_grad=True)
    weights = dense_weights(router(x, PREFILL))
    assert_close(weights, torch.tensor([[0, 0.3509195, 0.6490805], [0.7005672, 0, 0.2994328]]))
    (weights * torch.arange(6.0).view(2, 3)).sum().backward()
    assert_close(x.grad, torch.tensor([[-0.0387218, 0.0774435], [0.3650047, 0.0713227]]))
    assert_close(router.embedding.grad, torch.tensor([0.1135938, 0.4416978]))


@pytest.mark.parametrize(("hyper_width", "frozen"), [(64, 283_728), (256, 1_122_576)])
def test_d_numbers_are_trained_and_the_network_is_frozen(hyper_width, frozen):
    router = HyperRouter(256, 16, hyper_width=hyper_width)
    assert sum(p.numel() for p in router.parameters()) == 256
    assert sum(b.numel() for b in router.buffers()) == frozen


def test_only_the_vector_learns():
    router = HyperRouter(16, 8)
    before = {name: buffer.clone() for name, buffer in router.named_buffers()}
    router(torch.randn(20, 16), RouteContext(phase="train", num_steps=9)).weight.square().sum().backward()
    assert [name for name, p in router.named_parameters() if p.grad.abs().max() > 0] == ["embedding"]
    assert all(torch.equal(buffer, before[name]) for name, buffer in router.named_buffers())
    assert set(router.state_dict()) == {"embedding", "inner.weight", "inner.bias", "outer.weight", "outer.bias"}


def test_with_its_gate_written_out_it_is_a_frozen_router(assert_close):
    router, frozen, x = HyperRouter(16, 8, eval_top_k=3), SMoEDropoutRouter(16, 8, eval_top_k=3), torch.randn(40, 16)
    weight, bias = router.written_gate()
    frozen.gate.weight.copy_(weight.detach())
    frozen.gate.bias.copy_(bias.detach())
    here, there = router(x, PREFILL), frozen(x, PREFILL)
    assert_close(here.logit, there.logit)
    assert torch.equal(here.expert, there.expert)
    assert_close(here.weight, there.weight)


def test_inside_one_region_of_the_relu_the_gate_moves_along_a_line(assert_close):
    router = HyperRouter(8, 4)
    step = 1e-2 * torch.randn(8)
    hidden = router.inner(router.embedding.detach())
    moved = router.inner(router.embedding.detach() + step)
    assert torch.equal(hidden > 0, moved > 0)
    before = torch.cat([part.flatten() for part in router.written_gate()]).detach()
    router.embedding.data += step
    after = torch.cat([part.flatten() for part in router.written_gate()]).detach()
    line = router.outer.weight @ ((hidden > 0) * (router.inner.weight @ step))
    rows = line.view(4, 9)
    assert_close(after - before, torch.cat((rows[:, :8].flatten(), rows[:, 8])))


def test_a_vector_of_zeros_still_writes_a_gate():
    router = HyperRouter(16, 8)
    router.embedding.data.zero_()
    routing = router(torch.randn(200, 16), PREFILL)
    assert routing.logit.detach().std() > 0.1


def test_the_slope_of_the_vector_is_that_of_finite_differences():
    router, x = HyperRouter(8, 4, eval_top_k=2), torch.randn(6, 8)
    target = torch.randn(6, 2)

    def loss() -> torch.Tensor:
        routing = router(x, PREFILL)
        return (routing.weight * target).sum(), routing.expert

    value, chosen = loss()
    value.backward()
    for place in range(8):
        sides = []
        for sign in (1, -1):
            router.embedding.data[place] += sign * 1e-2
            side, expert = loss()
            assert torch.equal(expert, chosen)
            sides.append(float(side.detach()))
            router.embedding.data[place] -= sign * 1e-2
        assert abs((sides[0] - sides[1]) / 2e-2 - float(router.embedding.grad[place])) < 2e-3


def test_a_single_expert_teaches_the_vector_nothing():
    router = HyperRouter(16, 8, max_top_k=1)
    router(torch.randn(20, 16), RouteContext(phase="train", num_steps=9)).weight.square().sum().backward()
    assert router.embedding.grad.abs().max() == 0


@pytest.mark.parametrize("hyper_width", [64, 256])
def test_it_starts_as_sharp_as_the_card_says(hyper_width):
    weights = torch.stack([HyperRouter(256, 16, hyper_width=hyper_width).written_gate()[0].detach() for _ in range(10)])
    assert abs(float(weights.std()) - (1 / 18 + 1 / (3 * hyper_width)) ** 0.5) < 0.02


@pytest.mark.parametrize(("step", "experts"), [(0, 8), (500, 12), (999, 16)])
def test_the_number_of_experts_grows_during_training(step, experts):
    routing = HyperRouter(8, 16)(torch.randn(3, 8), RouteContext(phase="train", step=step, num_steps=1000))
    assert routing.top_k == experts


def test_equal_tokens_get_equal_logits_wherever_they_are():
    x = torch.randn(1, 16).expand(7, 16)
    logit = HyperRouter(16, 8)(x, PREFILL).logit
    assert torch.equal(logit, logit[:1].expand(7, 8))


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError) as error:
        HyperRouter(8, 4, hyper_width=0)
    assert str(error.value) == "hyper_width must be at least 1, got 0"
