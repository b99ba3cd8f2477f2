"""Every router: chance that can be asked again, no hidden state, saving, and two of a kind in one graph."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from workbench.core import Card, Router, SparseRouting


def attributes(router: Router) -> Mapping[str, object]:
    """Everything that a router holds beside its tensors, as text."""
    own = {name: repr(value) for module in router.modules() for name, value in vars(module).items() if name[0] != "_"}
    return own


def check_determinism(cls: type[Router], stage) -> None:
    """The same context gives the same bits, in every phase, whatever the global generators hold."""
    router, tokens = stage.layer_of(cls).router, stage.tokens_of(20, 44)
    for phase in stage.PHASES:
        torch.manual_seed(1)
        first = stage.decision(stage.decide(router, tokens, phase, step=3, seed=2))
        torch.manual_seed(2)
        stage.assert_same(stage.decision(stage.decide(router, tokens, phase, step=3, seed=2)), first)


def check_global_generator(cls: type[Router], stage) -> None:
    """A decision draws nothing from the global generator."""
    router, tokens = stage.layer_of(cls).router, stage.tokens_of(64)
    for phase in stage.PHASES:
        before = torch.get_rng_state()
        stage.decide(router, tokens, phase)
        assert torch.equal(torch.get_rng_state(), before), f"the global generator moved in {phase}"


def check_no_state(cls: type[Router], stage) -> None:
    """A decision changes neither a tensor nor an attribute of its router, nor the tokens."""
    router, tokens = stage.layer_of(cls).router, stage.tokens_of(64)
    buffers = dict(router.named_buffers())
    for phase in stage.PHASES:
        tensors = {name: tensor.detach().clone() for name, tensor in [*router.named_parameters(), *buffers.items()]}
        other, x = attributes(router), tokens.x.clone()
        stage.decide(router, tokens, phase)
        for name, tensor in [*router.named_parameters(), *router.named_buffers()]:
            assert torch.equal(tensor, tensors[name]), name
        assert attributes(router) == other
        assert torch.equal(tokens.x, x), "the tokens were changed in place"


def check_saving(cls: type[Router], stage) -> None:
    """A router made with another seed decides the same once it has loaded the first one's tensors."""
    source, copy = (stage.layer_of(cls, seed=seed).router for seed in (0, 1))
    tokens = stage.tokens_of(64)
    torch.manual_seed(7)
    copy.load_state_dict(source.state_dict())
    for phase in ("train", "prefill"):
        expected = stage.decision(stage.decide(source, tokens, phase))
        stage.assert_same(stage.decision(stage.decide(copy, tokens, phase)), expected)


def gradients_of(router: Router, stage, batches) -> dict[str, torch.Tensor]:
    """Gradients of the summed weights, squared, over batches in one graph."""
    loss = sum(stage.decide(router, tokens, "train").assignments().weight.square().sum() for tokens in batches)
    own = dict(router.named_parameters())
    if not (own and loss.requires_grad):
        return {name: torch.zeros_like(parameter) for name, parameter in own.items()}
    found = torch.autograd.grad(loss, own.values(), allow_unused=True, materialize_grads=True)
    return dict(zip(own, found, strict=True))


def check_double_use(cls: type[Router], stage, close) -> None:
    """Two decisions in one graph give the sum of their gradients."""
    router, first, second = stage.layer_of(cls).router, stage.tokens_of(40), stage.tokens_of(24, seed=1)
    together = gradients_of(router, stage, [first, second])
    apart = [gradients_of(router, stage, [tokens]) for tokens in (first, second)]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[0][name] + apart[1][name], **close)


def check_independence(cls: type[Router], stage) -> None:
    """The routers of two layers of a model share no tensor, and a decision of one does not touch the other."""
    below, above = (layer.router for layer in stage.model_of(cls).moe_layers())
    owned = {tensor.data_ptr() for tensor in below.state_dict().values()}
    assert not owned & {tensor.data_ptr() for tensor in above.state_dict().values()}
    assert (below.layer, above.layer) == (0, 1)
    tokens = stage.tokens_of(32)
    assert stage.decide(above, tokens, "train", previous=None).num_tokens == 32
    previous = stage.decide(below, tokens, "train")
    alone = stage.decision(stage.decide(above, tokens, "train", previous=previous))
    stage.decide(below, stage.tokens_of(16, seed=1), "train")
    stage.assert_same(stage.decision(stage.decide(above, tokens, "train", previous=previous)), alone)


def test_the_same_context_gives_the_same_bits(router, stage):
    check_determinism(router, stage)


def test_a_decision_leaves_the_global_generator_alone(router, stage):
    check_global_generator(router, stage)


def test_a_decision_changes_nothing(router, stage):
    check_no_state(router, stage)


def test_what_is_saved_is_enough(router, stage):
    check_saving(router, stage)


def test_two_decisions_in_one_graph_add_their_gradients(router, stage, tolerance):
    check_double_use(router, stage, tolerance[torch.float32])


def test_the_routers_of_two_layers_are_independent(router, stage):
    check_independence(router, stage)


class Top1(Router):
    """Top 1 over a gate; subclasses plant their fault in `logits`."""

    card = Card("planted")
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.calls = 0
        self.prepare()

    def prepare(self) -> None:
        pass

    def forward(self, x, context):
        weight, expert = self.logits(x, context).softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts)


class GlobalNoise(Top1):
    def logits(self, x, context):
        return self.gate(x) + torch.rand(len(x), self.num_experts)


class Counting(Top1):
    def logits(self, x, context):
        self.calls += 1
        return self.gate(x)


class Remembering(Top1):
    def prepare(self):
        self.register_buffer("seen", torch.zeros(()))

    def logits(self, x, context):
        self.seen += 1
        return self.gate(x) * self.seen


class InPlace(Top1):
    def logits(self, x, context):
        return self.gate(x.mul_(1.01))


class NotSaved(Top1):
    def prepare(self):
        self.register_buffer("table", torch.randn(self.width, self.num_experts), persistent=False)

    def logits(self, x, context):
        return x @ self.table


class Detaching(Top1):
    def logits(self, x, context):
        self.calls += 1
        return self.gate(x) if self.calls == 1 else self.gate(x).detach().requires_grad_()


SHARED = nn.Parameter(torch.randn(8, 32))


class Sharing(Top1):
    def prepare(self):
        self.gate.weight = SHARED

    def logits(self, x, context):
        return self.gate(x)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_determinism, GlobalNoise),
        (check_determinism, Remembering),
        (check_global_generator, GlobalNoise),
        (check_no_state, Counting),
        (check_no_state, Remembering),
        (check_no_state, InPlace),
        (check_saving, NotSaved),
        (check_independence, Sharing),
    ],
    ids=lambda value: value.__name__,
)
def test_a_planted_fault_is_found(check, fault, stage, plant):
    with pytest.raises(AssertionError):
        check(plant(fault), stage)


def test_a_graph_that_keeps_half_its_gradient_is_found(stage, plant, tolerance):
    with pytest.raises(AssertionError):
        check_double_use(plant(Detaching), stage, tolerance[torch.float32])
