"""Every router comes and goes: swapped in and out of a run, watching as a shadow, and twice in one layer."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from workbench.core import RouteContext, Router, Spec
from workbench.model.generate import Sampling, generate
from workbench.model.shadow import Shadow
from workbench.model.transformer import Transformer, initialise
from workbench.routers import ROUTERS
from workbench.train.config import TrainConfig
from workbench.train.loss import auxiliary, token_losses
from workbench.train.micro_batch import MicroBatch, tally
from workbench.train.optim import build_optimizer
from workbench.train.swap import swap_routers

CONFIG = TrainConfig()
TOKENS = torch.arange(48).view(2, 24) * 7 % 50


def train_once(model: Transformer, optimizer: torch.optim.AdamW, step: int) -> float:
    """One optimiser step as the trainer takes it, on a fixed batch."""
    optimizer.zero_grad()
    output = model(TOKENS[:, :-1], context=RouteContext(phase="train", step=step, num_steps=100))
    loss = token_losses(output.logits, TOKENS[:, 1:])
    aux = auxiliary(output.sites, model.routers_of(output.sites), loss, output.context)
    (loss.mean() + aux.total).backward()
    optimizer.step()
    part = MicroBatch(loss=float(loss.mean().detach()), tokens=46, sites=output.sites, aux=aux)
    model.update_routers(tally([part]))
    return part.loss


def exchanged(model: Transformer, optimizer: torch.optim.AdamW, name: str) -> None:
    """Another router in the model, with other experts where it needs them."""
    swap_routers(model, optimizer, CONFIG, Spec(name), rebuild_experts=True)
    assert {layer.router_name for layer in model.moe_layers()} == {name}


def begun(stage, cls: type[Router], **sizes) -> tuple[Transformer, torch.optim.AdamW]:
    model = initialise(Transformer(stage.config_of(cls, **sizes)), 0)
    return model, build_optimizer(model, CONFIG)


def everything(model: Transformer, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    names = dict(model.named_parameters())
    states = {f"{n}|{k}": v.clone() for n, p in names.items() for k, v in optimizer.state.get(p, {}).items()}
    return {**{name: tensor.clone() for name, tensor in model.state_dict().items()}, **states}


def test_it_takes_over_a_run_and_gives_it_back(router, stage):
    model, optimizer = begun(stage, ROUTERS.get("top_k"))
    before = [train_once(model, optimizer, 0)]
    experts = [layer.experts for layer in model.moe_layers()]
    name = ROUTERS.name_of(router)
    _, backup = swap_routers(model, optimizer, CONFIG, Spec(name), rebuild_experts=True)
    before += [train_once(model, optimizer, step) for step in (1, 2)]
    backup.restore(CONFIG)
    before.append(train_once(model, optimizer, 3))
    assert all(torch.tensor(before).isfinite())
    assert [layer.experts for layer in model.moe_layers()] == experts
    assert len(optimizer.state) == len([p for p in model.parameters() if p.requires_grad])


def test_a_swap_that_fails_on_trial_leaves_every_bit(router, stage):
    model, optimizer = begun(stage, router)
    train_once(model, optimizer, 0)
    before = everything(model, optimizer)

    def refuse() -> None:
        raise ValueError("not here")

    with pytest.raises(ValueError, match="not here"):
        swap_routers(model, optimizer, CONFIG, Spec("top_k"), rebuild_experts=True, trial=refuse)
    after = everything(model, optimizer)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_as_a_shadow_it_leaves_the_run_bit_equal(router, stage):
    found = []
    for watches in (False, True):
        model, _ = begun(stage, ROUTERS.get("top_k"))
        shadow = Shadow(model.config, Spec(ROUTERS.name_of(router))) if watches else None
        output = model(TOKENS, context=RouteContext(phase="train", num_steps=100), shadow=shadow)
        output.logits.square().sum().backward()
        own = [site.routing.expert for site in output.active_sites]
        found.append([output.logits, *own, *(p.grad for p in model.parameters())])
        assert len(output.sites) == len(own) * (2 if watches else 1)
    assert all(torch.equal(plain, watched) for plain, watched in zip(*found, strict=True))


def test_twice_in_one_layer_each_decides_for_itself(router, stage):
    sizes = {"iterations": 2, "wiring": "chain"}
    model, optimizer = begun(stage, router, **sizes)
    assert train_once(model, optimizer, 0) > 0
    sites = model(TOKENS, context=RouteContext(phase="prefill")).sites
    assert [(site.layer, site.iteration) for site in sites] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    if model.is_causal:
        prompt = TOKENS[0, :5].tolist()
        steps = generate(model, [prompt], Sampling(max_new_tokens=4, temperature=0))
        token_ids = torch.tensor([prompt + [int(step.token_ids) for step in steps]])
        with torch.no_grad():
            greedy = model(token_ids).logits.argmax(-1)
        assert torch.equal(greedy[:, 4:-1], token_ids[:, 5:])


def tour(names: list[str]) -> Iterator[str]:
    """A walk from the first name and back that takes every step from one name to another exactly once."""
    left = {name: [other for other in names if other != name] for name in names}
    path, walk = [names[0]], []
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            walk.append(path.pop())
    return reversed(walk)


def test_the_tour_takes_every_step_once():
    steps = list(tour(["a", "b", "c", "d"]))
    assert sorted(pairwise(steps)) == [(x, y) for x in "abcd" for y in "abcd" if x != y]


@pytest.mark.slow
def test_every_router_hands_over_to_every_other(stage):
    first, *others = tour(ROUTERS.names())
    model, optimizer = begun(stage, ROUTERS.get(first), num_layers=1)
    for step, name in enumerate(others):
        exchanged(model, optimizer, name)
        if step % 16 == 0:
            assert torch.tensor(train_once(model, optimizer, step)).isfinite()
    assert len(others) == len(ROUTERS.names()) * (len(ROUTERS.names()) - 1)
