"""AdamW over named groups."""

import pytest
import torch

from workbench.core import Spec
from workbench.model.transformer import Transformer, initialise
from workbench.train.config import TrainConfig
from workbench.train.optim import (
    build_optimizer,
    is_of_router,
    named_states,
    regroup,
    set_learning_rate,
)

CONFIG = TrainConfig(weight_decay=0.1, learning_rate=1e-2)


@pytest.fixture
def model(shape) -> Transformer:
    return initialise(Transformer(shape), 0)


def stepped(model: Transformer) -> torch.optim.AdamW:
    optimizer = build_optimizer(model, CONFIG)
    model(torch.arange(8)[None]).logits.square().sum().backward()
    optimizer.step()
    return optimizer


def test_every_parameter_is_in_one_group_and_only_matrices_decay(model):
    groups = {group["name"]: group for group in build_optimizer(model, CONFIG).param_groups}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "matrices": 0.1,
        "vectors": 0.0,
        "router matrices": 0.1,
    }
    grouped = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert all(p.dim() >= 2 for p in groups["matrices"]["params"])
    assert all(p.dim() < 2 for p in groups["vectors"]["params"])
    gates = {id(layer.router.gate.weight) for layer in model.moe_layers()}
    assert {id(p) for p in groups["router matrices"]["params"]} == gates


def test_a_router_without_parameters_has_no_group(model):
    model.set_router(Spec("hash"), 0)
    assert [group["name"] for group in build_optimizer(model, CONFIG).param_groups] == ["matrices", "vectors"]


def test_the_first_step_is_adams(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stepped(model)
    for name, parameter in model.named_parameters():
        # with no history the direction is the gradient's sign, and decay comes first.
        decay = 1 - CONFIG.learning_rate * (CONFIG.weight_decay if parameter.dim() >= 2 else 0)
        direction = parameter.grad / (parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), before[name] * decay - CONFIG.learning_rate * direction)


def test_names_tell_routers_from_the_rest():
    assert is_of_router("blocks.0.feed_forward.router.gate.weight")
    assert is_of_router("shared_part.weight")
    assert not is_of_router("blocks.0.feed_forward.experts.down")


def test_the_rate_reaches_every_group(model):
    optimizer = build_optimizer(model, CONFIG)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25] * 3


def test_states_are_named_by_parameter_and_field(model):
    states = named_states(model, stepped(model))
    names = [name for name, _ in model.named_parameters()]
    assert set(states) == {f"{name}|{field}" for name in names for field in ("step", "exp_avg", "exp_avg_sq")}


def test_new_routers_take_the_place_of_the_old_ones_without_their_state(model):
    optimizer = stepped(model)
    old = [layer.router.gate.weight for layer in model.moe_layers()]
    experts = {name: state.clone() for name, state in named_states(model, optimizer).items() if ".experts." in name}
    model.set_router(Spec("switch"), 1)
    regroup(optimizer, model, CONFIG)
    new = [layer.router.gate.weight for layer in model.moe_layers()]
    assert [group["name"] for group in optimizer.param_groups] == ["matrices", "vectors", "router matrices"]
    assert optimizer.param_groups[-1]["params"] == new
    assert not any(gate in optimizer.state for gate in [*old, *new])
    after = named_states(model, optimizer)
    assert all(torch.equal(after[name], state) for name, state in experts.items())
