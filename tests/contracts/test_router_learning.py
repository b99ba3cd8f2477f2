"""Every router: gradients arrive, losses are defined, and a small model learns."""

import inspect
import math
from types import MappingProxyType

import pytest
import torch

from workbench.core import Card, RouteContext, Router, Site, SparseRouting
from workbench.train.loss import auxiliary, token_losses
from workbench.train.micro_batch import MicroBatch, tally

EXCUSES = ("no gate", "no gradient")


def learnable(router: Router, context: RouteContext) -> dict[str, torch.nn.Parameter]:
    """A router's own parameters, or those of its shared part where that is all it has."""
    own = dict(router.named_parameters())
    return own if own or context.shared is None else dict(context.shared.named_parameters())


def task_gradients(cls: type[Router], stage) -> dict[str, torch.Tensor]:
    """Gradients of a router's parameters from a loss of the layer's output alone."""
    layer, tokens = stage.layer_of(cls), stage.tokens_of(64)
    context = stage.context_of(layer.router, tokens, "train")
    out = layer.router(tokens.x, context).apply(tokens.x, layer.all_experts, context)
    own = {name: p for name, p in learnable(layer.router, context).items() if p.requires_grad}
    found = (
        torch.autograd.grad(out.square().mean(), own.values(), allow_unused=True, materialize_grads=True) if own else ()
    )
    return dict(zip(own, found, strict=True))


def check_task_gradient(cls: type[Router], stage) -> None:
    """The loss of the task moves every parameter of the router, or its docstring says why not."""
    gradients = task_gradients(cls, stage)
    moved = [name for name, gradient in gradients.items() if gradient.abs().max() > 1e-6]
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    is_excused = any(excuse in inspect.getdoc(cls) for excuse in EXCUSES)
    assert is_excused or (moved and moved == list(gradients)), f"only {moved} of {list(gradients)} learn from the task"
    assert not (is_excused and gradients and moved == list(gradients)), "the docstring excuses what does learn"


def site_of(router: Router, routing) -> Site:
    return Site(layer=0, iteration=0, module="blocks.0.feed_forward", router="planted", routing=routing)


def check_losses(cls: type[Router], stage) -> None:
    """Every loss with a weight is defined by the router or the trainer, finite, and moves what it should."""
    layer = stage.layer_of(cls)
    names = layer.router.loss_weights.keys()
    assert all(weight >= 0 for weight in layer.router.loss_weights.values())
    for count in stage.SIZES:
        tokens = stage.tokens_of(count)
        tokens.x.requires_grad_()
        context = stage.context_of(layer.router, tokens, "train")
        routing = layer.router(tokens.x, context)
        aux = auxiliary((site_of(layer.router, routing),), [layer.router], torch.ones(count), context)
        assert aux.total.shape == ()
        assert set(aux.means) <= set(names)
        assert all(math.isfinite(value) for value in aux.means.values())
        load = routing.demand / routing.demand.sum().clamp_min(1)
        own = layer.router.losses(routing, load, torch.ones(count), context)
        assert set(own) <= set(names), "a loss without a weight is never seen"
        assert all(value.shape == () for value in own.values())
    if any(layer.router.loss_weights.values()):
        aux.total.backward()
        # a router without parameters still moves its tokens.
        moved = list(learnable(layer.router, context).values()) or [tokens.x]
        gradients = [p.grad for p in moved if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0


def one_step(model, token_ids: torch.Tensor, optimizer, step: int) -> float:
    """One optimiser step as the trainer takes it."""
    output = model(token_ids[:, :-1], context=RouteContext(phase="train", step=step, num_steps=100))
    losses = token_losses(output.logits, token_ids[:, 1:])
    aux = auxiliary(output.sites, model.routers_of(output.sites), losses, output.context)
    optimizer.zero_grad()
    (losses.mean() + aux.total).backward()
    optimizer.step()
    part = MicroBatch(loss=float(losses.mean().detach()), tokens=losses.numel(), sites=output.sites, aux=aux)
    tallies = tally([part])
    assert all(own.tokens == losses.numel() for own in tallies)
    model.update_routers(tallies)
    return part.loss


def check_learning(cls: type[Router], stage) -> None:
    """A model with this router learns which token follows which, and its experts take part."""
    model = stage.model_of(cls)
    before = [parameter.detach().clone() for layer in model.moe_layers() for parameter in layer.experts.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    follower = torch.randperm(stage.VOCABULARY, generator=torch.Generator().manual_seed(1))
    rows = [torch.arange(12) * 4 % stage.VOCABULARY]
    for _ in range(8):
        rows.append(follower[rows[-1]])
    token_ids = torch.stack(rows, dim=1)
    losses = [one_step(model, token_ids, optimizer, step) for step in range(16)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.5 * losses[0]
    after = [parameter for layer in model.moe_layers() for parameter in layer.experts.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_task_teaches_the_router_or_the_docstring_says_why_not(router, stage):
    check_task_gradient(router, stage)


def test_its_losses_are_defined_and_finite(router, stage):
    check_losses(router, stage)


def test_a_model_with_it_learns(router, stage):
    check_learning(router, stage)


class Top1(Router):
    """Top 1 over a gate."""

    card = Card("planted")
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = torch.nn.Linear(width, num_experts, bias=False)

    def forward(self, x, context):
        prob = self.gate(x).softmax(-1)
        weight, expert = prob.max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, self.weighed(weight), num_experts=self.num_experts, prob=prob)

    def weighed(self, weight):
        return weight


class Detached(Top1):
    """Top 1 whose weights carry nothing back."""

    def weighed(self, weight):
        return weight.detach()


class Excused(Top1):
    """Top 1 that says it gets no gradient, and gets one."""


class UnknownLoss(Top1):
    """Top 1 that asks for a loss nobody has."""

    loss_weights = MappingProxyType({"spread": 0.1})


class UnweightedLoss(Top1):
    """Top 1 with a loss that no weight names."""

    def losses(self, routing, load, token_loss, context):
        return {"spread": routing.prob.sum()}


class InfiniteLoss(Top1):
    """Top 1 whose loss divides by the number of tokens."""

    loss_weights = MappingProxyType({"spread": 0.1})

    def losses(self, routing, load, token_loss, context):
        return {"spread": routing.prob.sum() / routing.num_tokens}


class DeadLoss(Top1):
    """Top 1 whose loss teaches nothing."""

    loss_weights = MappingProxyType({"spread": 0.1})

    def losses(self, routing, load, token_loss, context):
        return {"spread": routing.prob.detach().sum()}


class Silent(Top1):
    """Top 1 that sends no token anywhere."""

    def forward(self, x, context):
        routing = super().forward(x, context)
        keep = torch.zeros_like(routing.expert, dtype=torch.bool)
        return SparseRouting.from_topk(routing.expert, routing.weight * keep, keep=keep, num_experts=self.num_experts)


class Dividing(Top1):
    """Top 1 whose weights divide by what soon is zero."""

    def weighed(self, weight):
        return weight / (weight - weight.detach())


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_task_gradient, Detached),
        (check_task_gradient, Excused),
        (check_losses, UnweightedLoss),
        (check_losses, InfiniteLoss),
        (check_learning, Silent),
        (check_learning, Dividing),
    ],
    ids=lambda value: value.__name__,
)
def test_a_planted_fault_is_found(check, fault, stage, plant):
    with pytest.raises(AssertionError):
        check(plant(fault), stage)


def test_a_loss_that_nobody_defines_is_found(stage, plant):
    with pytest.raises(ValueError, match="has a weight for loss 'spread', which neither it nor the trainer defines"):
        check_losses(plant(UnknownLoss), stage)


def test_a_loss_without_a_gradient_is_found(stage, plant):
    with pytest.raises(RuntimeError, match="does not require grad"):
        check_losses(plant(DeadLoss), stage)
