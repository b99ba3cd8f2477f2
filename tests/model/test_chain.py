"""Chain-of-Experts: the same experts several times in a row, each time under a router of its own."""

import pytest
import torch

from workbench.core import RouteContext, Spec
from workbench.model.config import preset
from workbench.model.generate import Sampling, generate

CONTEXT = RouteContext()


def layer_of(make_model, **sizes):
    return make_model(**sizes).blocks[0].feed_forward


def added(layer, router, state):
    """One pass, written as two separate parts: decide, then apply."""
    return router(state, CONTEXT).apply(state, layer.experts, CONTEXT)


def test_two_passes_are_two_chained_layers_that_share_experts(make_model, assert_close):
    layer = layer_of(make_model, iterations=2, wiring="chain")
    stream = torch.randn(7, 32)
    state = layer.norm(stream)
    for router in layer.routers:
        state = state + added(layer, router, state)
    out, sites = layer(stream, CONTEXT)
    assert_close(out, state, dtype=torch.float32)
    assert [site.iteration for site in sites] == [0, 1]


def test_the_third_wiring_keeps_the_raw_stream(make_model, assert_close):
    chain = layer_of(make_model, iterations=2, wiring="chain")
    kept = layer_of(make_model, iterations=2, wiring="chain_stream")
    stream = torch.randn(7, 32)
    expected = stream + chain(stream, CONTEXT)[0] - chain.norm(stream)
    assert_close(kept(stream, CONTEXT)[0], expected, dtype=torch.float32)


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("wiring", ["chain", "chain_stream"])
def test_experts_that_are_zero_leave_the_normed_or_the_raw_stream(make_model, iterations, wiring, assert_close):
    layer = layer_of(make_model, iterations=iterations, wiring=wiring)
    layer.experts.down.data.zero_()
    stream = torch.randn(5, 32)
    expected = layer.norm(stream) if wiring == "chain" else stream
    assert_close(layer(stream, CONTEXT)[0], expected, dtype=torch.float32)


def test_every_router_learns_and_the_first_through_the_second(make_model):
    layer = layer_of(make_model, iterations=2, wiring="chain")
    out, (_, second) = layer(torch.randn(40, 32), CONTEXT)
    first, last = layer.routers
    grads = torch.autograd.grad(out.square().sum(), [first.gate.weight, last.gate.weight], retain_graph=True)
    assert all(grad.abs().max() > 0 for grad in grads)
    assert not torch.equal(*grads)
    (through,) = torch.autograd.grad(second.routing.logit.square().sum(), [first.gate.weight])
    assert through.abs().max() > 0


def test_a_chain_adds_only_router_weights(make_model):
    one, two = make_model(), make_model(iterations=3, wiring="chain")
    assert two.num_parameters() - one.num_parameters() == 2 * 2 * 6 * 32


def test_the_shared_expert_works_in_every_pass(make_model, assert_close):
    layer = layer_of(make_model, iterations=2, wiring="chain", shared_width=8)
    layer.experts.down.data.zero_()
    stream = torch.randn(5, 32)
    state = layer.norm(stream)
    for _ in range(2):
        state = state + layer.shared(state)
    assert_close(layer(stream, CONTEXT)[0], state, dtype=torch.float32)


def test_decoding_with_a_cache_equals_the_full_forward(make_model):
    model = make_model(iterations=2, wiring="chain")
    prompt = [5, 6, 7]
    steps = generate(model, [prompt], Sampling(max_new_tokens=6, temperature=0))
    token_ids = torch.tensor([prompt + [int(step.token_ids) for step in steps]])
    with torch.no_grad():
        greedy = model(token_ids).logits.argmax(-1)
    assert torch.equal(greedy[:, 2:-1], token_ids[:, 3:])


def test_passes_need_a_wiring(make_config):
    with pytest.raises(ValueError, match=r'iterations=2 needs wiring="chain" or "chain_stream", got "residual"'):
        make_config(iterations=2)


def test_a_preset_takes_fields_by_name():
    chained = preset("tiny:iterations=2,wiring=chain,num_experts=16")
    assert (chained.iterations, chained.wiring, chained.num_experts) == (2, "chain", 16)
    assert chained.router == Spec("top_k")


def test_post_moe_leaves_experts_in_the_last_blocks_only():
    config = preset("tiny:post_moe=2")
    assert config.moe_layers == (2, 3)
    assert config.dense_width == 2 * config.expert_width
    assert preset("tiny:post_moe=1,dense_width=96").dense_width == 96


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny:post_moe=9", r"post_moe must be between 1 and 4, got 9"),
        ("tiny:num_expert=9", r"no field 'num_expert' \(did you mean 'num_experts'\?\)"),
        ("tiny:num_experts=many", r"num_experts must be int, got 'many'"),
        ("tiny:router=top_k", r"has no field 'router'"),
    ],
)
def test_a_preset_refuses_what_it_does_not_have(name, message):
    with pytest.raises(ValueError, match=message):
        preset(name)
