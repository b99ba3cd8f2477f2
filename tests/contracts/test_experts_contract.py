"""Every kind of expert: the same mathematics over its own tensors, over copies, over a part, for one row or many."""

import inspect

import pytest
import torch

from workbench.core import Experts, RouteContext, SparseRouting
from workbench.experts import EXPERTS
from workbench.experts.mlp import MLPExperts

WIDTH, COUNT = 6, 5


def build(cls: type[Experts], dtype: torch.dtype = torch.float64) -> Experts:
    """Experts with random parameters; whatever size a kind must be told is 4."""
    parameters = inspect.signature(cls).parameters.values()
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    experts = cls(WIDTH, COUNT, **dict.fromkeys(needed, 4)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return experts


def case(
    dtype: torch.dtype = torch.float64, *, tokens: int = 7, drops: bool = True
) -> tuple[torch.Tensor, SparseRouting]:
    """Tokens and a plan in which expert 3 has no row and some assignments are lost."""
    generator = torch.Generator().manual_seed(1)
    expert = torch.rand(tokens, 4, generator=generator).argsort(-1)[:, :2]
    expert = torch.where(expert == 3, 4, expert)
    keep = torch.rand(tokens, 2, generator=generator) < 0.8 if drops else None
    weight = torch.rand(tokens, 2, generator=generator) * (1 if keep is None else keep)
    plan = SparseRouting.from_topk(expert, weight, keep=keep, num_experts=COUNT)
    return torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64).to(dtype), plan


def copies(tensors):
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def check_copies(cls: type[Experts]) -> None:
    """Tensors from elsewhere give the same bits and take the gradients."""
    experts, (x, plan) = build(cls), case()
    own, elsewhere = experts(x, plan, RouteContext()), copies(experts.tensors())
    out = experts.run(elsewhere, x, plan, RouteContext())
    assert torch.equal(own, out)
    if elsewhere:
        upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        got = torch.autograd.grad(out, elsewhere, upstream)
        expected = torch.autograd.grad(own, experts.tensors(), upstream)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def check_one_at_a_time(cls: type[Experts], close) -> None:
    """The output is the weighted sum over assignments, each computed alone."""
    experts, (x, plan) = build(cls), case()
    expected = torch.zeros_like(x)
    for t in range(len(x)):
        for k in range(plan.top_k):
            if plan.kept[t, k]:
                alone = SparseRouting.from_topk(plan.expert[t, k].view(1, 1), torch.ones(1, 1), num_experts=COUNT)
                y = experts(x[t : t + 1], alone, RouteContext())[0]
                expected[t] += plan.weight[t, k].to(x.dtype) * y.detach()
    torch.testing.assert_close(experts(x, plan, RouteContext()).detach(), expected, **close)


def check_parts(cls: type[Experts], close) -> None:
    """Parts of the experts, given their tensors and their picks of the plan, add up to the whole."""
    experts, (x, plan) = build(cls), case()
    parts = [torch.tensor(part, dtype=torch.long) for part in ([4, 0], [3], [], [1, 2])]
    outs = [experts.run(tuple(t[p] for t in experts.tensors()), x, plan.pick(p), RouteContext()) for p in parts]
    torch.testing.assert_close(sum(outs), experts(x, plan, RouteContext()), **close)


def check_gradients(cls: type[Experts]) -> None:
    """Gradients of tokens, weights and parameters are those of finite differences."""
    experts, (x, plan) = build(cls), case(tokens=3)
    weight = plan.weight.double().requires_grad_()

    def run(x, weight, *tensors):
        learning = SparseRouting(expert=plan.expert, weight=weight, kept=plan.kept, num_experts=COUNT)
        return experts.run(tensors, x, learning, RouteContext())

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), weight, *copies(experts.tensors())))


def check_idle(cls: type[Experts]) -> None:
    """An expert without rows gets no gradient, and a broken one spoils only its own tokens."""
    experts, (x, plan) = build(cls), case()
    assert plan.counts[3] == 0
    if not experts.tensors():
        return
    for gradient in torch.autograd.grad(experts(x, plan, RouteContext()).sum(), experts.tensors()):
        assert gradient[3].abs().max() == 0
        assert gradient.abs().max() > 0
    broken = copies(experts.tensors())
    for tensor in broken:
        tensor.data[2] = torch.nan
    spoilt = experts.run(broken, x, plan, RouteContext()).isnan().any(-1)
    assert torch.equal(spoilt, ((plan.expert == 2) & plan.kept).any(-1))


def check_few(cls: type[Experts], close) -> None:
    """No token, one token with and without a graph, and all in one expert are no special cases."""
    experts = build(cls)
    x, plan = case(tokens=1, drops=False)
    with torch.no_grad():
        short = experts(x, plan, RouteContext())
    torch.testing.assert_close(short, experts(x, plan, RouteContext()).detach(), **close)
    none, empty = case(tokens=0, drops=False)
    assert experts(none, empty, RouteContext()).shape == (0, WIDTH)
    many, _ = case()
    to_one = SparseRouting.from_topk(torch.full((7, 1), 2), torch.ones(7, 1), num_experts=COUNT)
    rows = torch.cat(
        [
            experts(
                row.unsqueeze(0),
                to_one.from_topk(torch.tensor([[2]]), torch.ones(1, 1), num_experts=COUNT),
                RouteContext(),
            )
            for row in many
        ]
    )
    torch.testing.assert_close(experts(many, to_one, RouteContext()), rows, **close)


def check_rows(cls: type[Experts], dtype: torch.dtype, *, tokens: int, drops: bool, close=None) -> None:
    """Rows that are combined afterwards give the very bits of `run`, also when they come in waves of experts.

    Experts without tensors are never brought in waves; their bits may differ by the order of sums.
    """
    experts, (x, plan) = build(cls, dtype), case(dtype, tokens=tokens, drops=drops)
    expected, context = experts(x, plan, RouteContext()), RouteContext()
    close = {"rtol": 0, "atol": 0} if experts.tensors() else close
    rows = experts.unweighted(experts.tensors(), x, plan, context)
    torch.testing.assert_close(plan.combine(rows).to(x.dtype), expected, **close)
    generator = torch.Generator().manual_seed(tokens)
    starts = plan.counts.cumsum(0) - plan.counts
    for _ in range(3):
        shuffled = torch.randperm(COUNT, generator=generator)
        cut = int(torch.randint(1, COUNT, (1,), generator=generator))
        apart = torch.full_like(rows, torch.nan)
        for wave in (shuffled[:cut], shuffled[cut:]):
            # in slots of their own order, among slots of nobody.
            slots = torch.randperm(COUNT + 2, generator=generator)[: len(wave)]
            held = tuple(
                t.new_full((COUNT + 2, *t.shape[1:]), 7.0).index_copy(0, slots, t[wave]) for t in experts.tensors()
            )
            part = plan.renumber(wave, slots, num_experts=COUNT + 2)
            got, at = experts.unweighted(held, x, part, context), 0
            for expert in wave[slots.argsort()].tolist():
                count = int(plan.counts[expert])
                apart[starts[expert] : starts[expert] + count] = got[at : at + count]
                at += count
            assert at == len(got)
        torch.testing.assert_close(plan.combine(apart).to(x.dtype), expected, **close)


def check_no_state(cls: type[Experts]) -> None:
    """Running changes nothing and draws nothing from the global generator."""
    experts, (x, plan) = build(cls), case()
    before, generator = {k: v.clone() for k, v in experts.state_dict().items()}, torch.get_rng_state()
    first = experts(x, plan, RouteContext())
    assert torch.equal(first, experts(x, plan, RouteContext()))
    assert all(torch.equal(before[name], tensor) for name, tensor in experts.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.fixture
def kind(experts_name) -> type[Experts]:
    return EXPERTS.get(experts_name)


@pytest.mark.parametrize("check", [check_copies, check_gradients, check_idle, check_no_state], ids=lambda c: c.__name__)
def test_a_kind_of_expert_keeps_the_contract(kind, check):
    check(kind)


@pytest.mark.parametrize("check", [check_one_at_a_time, check_parts, check_few], ids=lambda c: c.__name__)
def test_a_kind_of_expert_computes_what_it_says(kind, check, tolerance):
    check(kind, tolerance[torch.float64])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("tokens", "drops"), [(7, True), (7, False), (40, True), (1, True)])
def test_rows_that_are_combined_later_lose_no_bit(kind, dtype, tokens, drops, tolerance):
    check_rows(kind, dtype, tokens=tokens, drops=drops, close=tolerance[dtype])


class WithFault(Experts):
    """SwiGLU experts by the real ones, with a fault that each subclass plants."""

    def __init__(self, width: int, num_experts: int, *, hidden: int):
        super().__init__(num_experts)
        self.body = MLPExperts(width, num_experts, hidden=hidden)
        self.calls = 0

    def tensors(self):
        return self.body.tensors()

    def unweighted(self, tensors, x, plan, context):
        return self.body.unweighted(tensors, x, plan, context)


class UsesItsOwn(WithFault):
    def run(self, tensors, x, plan, context):
        return self.body.run(self.tensors() if len(tensors[0]) == COUNT else tensors, x, plan, context)


class IgnoresWeights(WithFault):
    def run(self, tensors, x, plan, context):
        even = SparseRouting(
            expert=plan.expert, weight=torch.ones_like(plan.weight), kept=plan.kept, num_experts=plan.num_experts
        )
        return self.body.run(tensors, x, even, context)


class IgnoresDrops(WithFault):
    def run(self, tensors, x, plan, context):
        every = SparseRouting(expert=plan.expert.clamp_min(0), weight=plan.weight + 0.1, num_experts=plan.num_experts)
        return self.body.run(tensors, x, every, context)


class Drifting(WithFault):
    def run(self, tensors, x, plan, context):
        self.calls += 1
        return self.body.run(tensors, x, plan, context) * (1 + 1e-6 * self.calls)


@pytest.mark.parametrize(
    ("check", "fault"),
    [(check_copies, UsesItsOwn), (check_no_state, Drifting), (check_idle, IgnoresDrops)],
    ids=lambda value: value.__name__,
)
def test_a_planted_fault_is_found(check, fault):
    with pytest.raises((AssertionError, RuntimeError)):
        check(fault)


@pytest.mark.parametrize(
    ("check", "fault"),
    [(check_one_at_a_time, IgnoresWeights), (check_parts, IgnoresDrops), (check_few, Drifting)],
    ids=lambda value: value.__name__,
)
def test_a_planted_miscalculation_is_found(check, fault, tolerance):
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check(fault, tolerance[torch.float64])


class RoundsRows(WithFault):
    def run(self, tensors, x, plan, context):
        return self.body.run(tensors, x, plan, context)

    def unweighted(self, tensors, x, plan, context):
        return self.body.unweighted(tensors, x, plan, context).to(x.dtype)


@torch.no_grad()
def test_rows_that_are_rounded_too_early_are_found():
    with pytest.raises(AssertionError):
        check_rows(RoundsRows, torch.bfloat16, tokens=40, drops=True)
