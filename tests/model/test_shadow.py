"""A shadow router decides beside the active one and changes not one bit of the run."""

import pytest
import torch

from workbench.core import RouteContext, Spec
from workbench.model.shadow import Shadow

TOKENS = torch.arange(24).view(2, 12)


def shadow_sites(output):
    return [site for site in output.sites if site.is_shadow]


@pytest.mark.parametrize("router", ["switch", "hash", "expert_choice", "dense", "random"])
def test_a_shadow_leaves_logits_gradients_and_decisions_bit_equal(make_model, router):
    found = []
    for watches in (False, True):
        model = make_model()
        shadow = Shadow(model.config, Spec(router)) if watches else None
        output = model(TOKENS, context=RouteContext(phase="train"), shadow=shadow)
        output.logits.square().sum().backward()
        own = [site.routing.expert for site in output.sites if not site.is_shadow]
        found.append((output.logits, *own, *(p.grad for p in model.parameters())))
    assert all(torch.equal(plain, watched) for plain, watched in zip(*found, strict=True))


def test_its_decisions_stand_beside_those_of_the_active_router(make_model):
    model = make_model()
    output = model(TOKENS, shadow=Shadow(model.config, Spec("switch")))
    assert [(s.layer, s.router, s.is_shadow) for s in output.sites] == [
        (0, "top_k", False),
        (0, "switch", True),
        (1, "top_k", False),
        (1, "switch", True),
    ]


def test_with_the_weights_of_the_active_router_it_decides_the_same(make_model):
    model = make_model()
    shadow = Shadow(model.config, model.config.router)
    shadow.take_over([layer.router for layer in model.moe_layers()], model.shared_part)
    sites = model(TOKENS, shadow=shadow).sites
    for own, watched in zip(sites[::2], sites[1::2], strict=True):
        assert torch.equal(own.routing.expert, watched.routing.expert)
        assert torch.equal(own.routing.weight, watched.routing.weight)


def test_no_gradient_flows_into_the_model_and_some_into_the_shadow(make_model):
    model = make_model()
    shadow = Shadow(model.config, Spec("top_k"))
    output = model(TOKENS, shadow=shadow)
    sum(site.routing.logit.square().sum() for site in shadow_sites(output)).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad.abs().max() > 0 for p in shadow.parameters())


def test_a_bias_steers_the_active_router_alone(make_model):
    model = make_model()
    shadow = Shadow(model.config, model.config.router)
    shadow.take_over([layer.router for layer in model.moe_layers()], None)
    bias = torch.zeros(2, 6)
    bias[0, 3] = -torch.inf
    first, watched = model(TOKENS, shadow=shadow, bias=bias).sites[:2]
    assert first.routing.counts[3] == 0
    assert watched.routing.counts[3] > 0


def test_the_model_knows_nothing_of_it(make_model):
    model = make_model()
    names = set(model.state_dict())
    shadow = Shadow(model.config, Spec("switch"))
    model(TOKENS, shadow=shadow)
    assert not set(shadow.parameters()) & set(model.parameters())
    assert set(model.state_dict()) == names


def test_it_is_refused_where_layers_run_twice_or_have_no_experts(make_config):
    with pytest.raises(ValueError, match="needs layers that run once, got iterations=2"):
        Shadow(make_config(iterations=2, wiring="chain"), Spec("switch"))
    with pytest.raises(ValueError, match="no MoE layer, so there is nothing to watch"):
        Shadow(make_config(dense_layers=(0, 1), dense_width=8), Spec("switch"))
    with pytest.raises(LookupError, match="did you mean 'switch'"):
        Shadow(make_config(), Spec("swich"))
