"""What a router brings into a layer: drawn from its own seed, each iteration with its own gate."""

import torch

from workbench.core import RouteContext, Spec
from workbench.core.router import Card, Router
from workbench.core.sparse import SparseRouting
from workbench.experts.mlp import MLPExperts
from workbench.experts.zero import ZeroExperts
from workbench.model.router_parts import misfit, new_experts, new_router, new_shared_part


def test_the_seed_and_the_layer_decide_a_routers_weights(make_config):
    config = make_config()
    before = torch.random.get_rng_state()
    first, again = (new_router(config, 0, seed=3).routers[0] for _ in range(2))
    others = new_router(config, 1, seed=3).routers[0], new_router(config, 0, seed=4).routers[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.gate.weight, again.gate.weight)
    assert not any(torch.equal(first.gate.weight, other.gate.weight) for other in others)


def test_every_iteration_has_a_router_of_its_own(make_config):
    config = make_config(iterations=3, wiring="chain")
    one, *others = new_router(config, 0, seed=3).routers
    assert len(others) == 2
    assert not any(torch.equal(one.gate.weight, other.gate.weight) for other in others)
    alone = new_router(make_config(), 0, seed=3).routers[0]
    assert torch.equal(one.gate.weight, alone.gate.weight)


def test_experts_are_of_the_models_kind_unless_the_router_says(make_config):
    config = make_config()
    assert isinstance(new_experts(config, None, 0, seed=0), MLPExperts)
    zero = Spec("mlp", {})
    assert new_experts(config, zero, 0, seed=0).gate_up.shape == (6, 48, 32)


class Cheap(Router):
    """A router with two kinds of extra experts and a shared part. Source: none."""

    card = Card("a test")
    causal = causal_in_training = True
    extra_experts = (Spec("zero", {"num_experts": 2}), Spec("copy", {"num_experts": 1}))

    def forward(self, x, context):
        expert = torch.arange(len(x)).unsqueeze(-1) % (self.num_experts + 3)
        weight = torch.full((len(x), 1), 0.5)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts + 3)

    def shared_part(self):
        return torch.nn.Linear(2, 2)


def test_extra_experts_follow_the_models_own(make_config, make_model, monkeypatch, assert_close):
    entry = type("Entry", (), {"name": "cheap", "value": "x:Cheap", "load": lambda self: Cheap})()
    monkeypatch.setattr(
        "workbench.core.registry.entry_points", lambda **group: [entry] if group["group"] == "workbench.routers" else []
    )
    layer = make_model(router=Spec("cheap")).blocks[0].feed_forward
    zero, copy = layer.extra_experts
    assert (zero.num_experts, copy.num_experts) == (2, 1)
    assert isinstance(zero, ZeroExperts)
    stream = torch.randn(9, 32)
    out, (site,) = layer(stream, RouteContext())
    x = layer.norm(stream)
    added = out - stream
    assert_close(added[6:8], torch.zeros(2, 32), dtype=torch.float32)
    assert_close(added[8], 0.5 * x[8], dtype=torch.float32)
    assert added[:6].abs().min(dim=-1).values.min() > 0
    assert site.routing.counts.tolist() == [1] * 9


def test_a_shared_part_has_a_seed_too():
    router = Cheap(2, 4)
    cpu = torch.device("cpu")
    first, again, other = (new_shared_part(router, cpu, seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_misfit_says_what_to_do():
    assert misfit(Spec("base"), Spec("residual", {"blocks": 2}), None) == (
        "router base needs experts of kind residual:blocks=2, and this model has mlp; pass rebuild_experts=True "
        "to start all its experts anew, or train a new model with this router"
    )
