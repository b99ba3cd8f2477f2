"""Every kind of routing: counts that agree, and an output that is differentiable."""

import pytest
import torch
from torch import Tensor

from workbench.core import MergedRouting, RouteContext, Routing, SlotRouting, SparseRouting
from workbench.experts.mlp import MLPExperts

EXPERTS, WIDTH, TOKENS = 3, 3, 4


def sparse(weight: Tensor) -> SparseRouting:
    """The two largest of each row, the last token's second one lost."""
    chosen = weight.topk(2).indices
    keep = torch.ones_like(chosen, dtype=torch.bool)
    keep[-1:, 1] = False
    return SparseRouting(expert=chosen, weight=weight.gather(1, chosen) * keep, kept=keep, num_experts=EXPERTS)


def slots(weight: Tensor) -> SlotRouting:
    pair = torch.stack((weight, weight.flip(-1)), dim=-1)
    return SlotRouting(num_experts=EXPERTS, dispatch=pair.softmax(0), combine=pair.flatten(1).softmax(-1).view_as(pair))


def merged(weight: Tensor) -> MergedRouting:
    group = torch.arange(len(weight)) // 2
    return MergedRouting(num_experts=EXPERTS, mixture=weight[::2].softmax(-1), group=group)


KINDS = {SparseRouting: sparse, SlotRouting: slots, MergedRouting: merged}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def make(request):
    """Builds a routing of one kind from a matrix of weights."""
    return KINDS[request.param]


@pytest.fixture
def experts() -> MLPExperts:
    body = MLPExperts(WIDTH, EXPERTS, hidden=2).double()
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    return body


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_every_kind_is_judged_here():
    assert set(KINDS) == set(Routing.__subclasses__())


@pytest.mark.parametrize("tokens", [0, 1, TOKENS])
def test_counts_demand_and_assignments_have_their_sizes(make, tokens):
    routing = make(draw(tokens, EXPERTS).float())
    flat = routing.assignments()
    assert routing.num_tokens == tokens
    assert routing.num_experts == EXPERTS
    assert routing.demand.shape == routing.counts.shape == (EXPERTS,)
    assert routing.demand.dtype == routing.counts.dtype == torch.int64
    assert (routing.counts <= routing.demand).all()
    assert flat.weight.dtype == torch.float32
    assert len({len(flat.token), len(flat.expert), len(flat.weight), len(flat.kept)}) == 1
    assert (flat.token.diff() >= 0).all()
    assert len(routing._repr_html_()) < 5000


@pytest.mark.parametrize("tokens", [0, 1, TOKENS])
def test_the_output_has_the_shape_and_dtype_of_the_tokens(make, experts, tokens):
    for x in (draw(tokens, WIDTH), draw(tokens, WIDTH).float()):
        out = make(draw(tokens, EXPERTS)).apply(x, experts.to(x.dtype), RouteContext())
        assert (out.shape, out.dtype) == (x.shape, x.dtype)


def test_gradients_are_those_of_finite_differences(make, experts):
    weight = draw(TOKENS, EXPERTS)

    def run(x, weight, *tensors):
        class Given(torch.nn.Module):
            def tensors(self):
                return tensors

            def run(self, given, x, plan, context):
                return experts.run(given, x, plan, context)

            def forward(self, x, plan, context):
                return self.run(tensors, x, plan, context)

        return make(weight).apply(x, Given(), RouteContext())

    leaves = (draw(TOKENS, WIDTH), weight, *(t.detach().clone() for t in experts.tensors()))
    assert torch.autograd.gradcheck(run, tuple(leaf.requires_grad_() for leaf in leaves))


def test_a_graph_and_no_graph_give_the_same_output(make, experts, assert_close):
    for tokens in (1, TOKENS):
        x, weight = draw(tokens, WIDTH), draw(tokens, EXPERTS)
        with_graph = make(weight).apply(x, experts, RouteContext())
        with torch.no_grad():
            assert_close(make(weight).apply(x, experts, RouteContext()), with_graph.detach())


def test_the_tokens_are_left_as_they_were(make, experts):
    x = draw(TOKENS, WIDTH)
    before = x.clone()
    make(draw(TOKENS, EXPERTS)).apply(x, experts, RouteContext())
    assert torch.equal(x, before)
