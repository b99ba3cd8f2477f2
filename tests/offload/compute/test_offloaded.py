"""Experts that are brought: waves of them, and what they refuse."""

from types import SimpleNamespace

import pytest
import torch

from workbench.core import RouteContext, SparseRouting, Spec
from workbench.experts import EXPERTS
from workbench.offload.compute.offloaded import OffloadedExperts
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.ledger import Ledger
from workbench.offload.precision.plan import Precision
from workbench.offload.precision.skipping import without_light
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.encoding import Encoding

WIDTH, COUNT = 16, 6


class Instant:
    """An engine that gives everything out, in waves as it is told; slot = 5 - expert.

    Those that are `late` are not there before they are given out, and those that were there are gone by then.
    """

    capacity = COUNT
    # what the constructor's signature asks for.
    __class__ = OffloadEngine

    decoder = host_side = None

    def __init__(self, tensors, cuts, skip=0.0):
        encoding = Encoding.from_json(None, parts_of([tensor[0] for tensor in tensors]), 4 * COUNT)
        self.precision = Precision(encoding, OffloadConfig(skip=skip), num_layers=4, num_experts=COUNT)
        self.ledger, self.loop = Ledger(), SimpleNamespace(cache=SimpleNamespace(slot_of={}))
        self.pool = SimpleNamespace(tensors=tuple(tensor.flip(0).contiguous() for tensor in tensors))
        self.cuts, self.asked, self.late, self.whole = cuts, [], set(), self.pool.tensors

    def slots_of(self, pages):
        return [-1 if page - 3 * COUNT in self.late else 5 - (page - 3 * COUNT) for page in pages]

    def begin_pass(self, layer, iteration, tokens, *, is_prompt):
        self.asked.append((layer, iteration, tokens, is_prompt))

    def serve(self, seen, tokens, *, meanwhile):
        late = [5 - expert for expert in self.late]
        self.pool.tensors = tuple(tensor.clone() for tensor in self.whole)
        for tensor in self.pool.tensors:
            tensor[late] = torch.nan
        meanwhile()
        for tensor, whole in zip(self.pool.tensors, self.whole, strict=True):
            if late:
                tensor.fill_(torch.nan)
                tensor[late] = whole[late]
        self.asked.append((list(seen.pages), list(seen.counts), list(tokens)))
        experts = [page - 3 * COUNT for page in seen.pages]
        start = 0
        for cut in [*self.cuts, len(experts)]:
            if experts[start:cut]:
                yield experts[start:cut], [5 - expert for expert in experts[start:cut]]
            start = max(start, cut)


def made(kind: str, cuts=(), dtype=torch.float32, skip=0.0):
    """A kind of experts, and the same ones offloaded."""
    body = Spec(kind).build(EXPERTS, WIDTH, COUNT, hidden=8).to(dtype)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.device("meta"):
        empty = Spec(kind).build(EXPERTS, WIDTH, COUNT, hidden=8)
    engine = Instant([tensor.detach() for tensor in body.tensors()], cuts, skip)
    return body, OffloadedExperts(empty, engine, 3, lambda layer, x, context: ())


def plan_of(expert: list[list[int]], **fields) -> SparseRouting:
    chosen = torch.tensor(expert)
    weight = torch.rand(chosen.shape, generator=torch.Generator().manual_seed(3))
    return SparseRouting(expert=chosen, weight=weight, num_experts=COUNT, **fields)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "swish_mlp", "residual"])
def test_waves_change_no_bit(kind, cuts):
    body, offloaded = made(kind, cuts)
    plan = plan_of([[0, 5], [4, 1], [5, 2], [0, 4]])
    x = torch.randn(4, WIDTH)
    assert torch.equal(offloaded(x, plan, RouteContext()), body(x, plan, RouteContext()))
    rows = offloaded.unweighted((), x, plan, RouteContext())
    assert torch.equal(rows, body.unweighted(body.tensors(), x, plan, RouteContext()))


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "swish_mlp", "residual"])
def test_experts_that_are_there_compute_before_the_others_come_and_change_no_bit(kind, cuts):
    body, offloaded = made(kind, cuts)
    plan, x = plan_of([[0, 5], [4, 1], [5, 2], [0, 4]]), torch.randn(4, WIDTH)
    for late in ({1}, {0, 5}, {0, 1, 2, 4}, {0, 1, 2, 4, 5}):
        offloaded.engine.late = late
        assert torch.equal(offloaded(x, plan, RouteContext()), body(x, plan, RouteContext()))
        rows = offloaded.unweighted((), x, plan, RouteContext())
        assert torch.equal(rows, body.unweighted(body.tensors(), x, plan, RouteContext()))


@torch.no_grad()
def test_an_expert_that_is_chosen_twice_by_one_token_is_asked_for_once():
    body, offloaded = made("mlp")
    x, plan = torch.randn(1, WIDTH), plan_of([[4, 4, 1]])
    out = offloaded(x, plan, RouteContext())
    assert offloaded.engine.asked[1][:2] == ([19, 22], [1, 2])
    assert torch.equal(out, body(x, plan, RouteContext()))


@torch.no_grad()
def test_only_who_has_rows_is_asked_for():
    _, offloaded = made("mlp")
    kept = torch.tensor([[True, False], [True, True], [False, False]])
    plan = plan_of([[2, 1], [5, 2], [3, -1]], kept=kept)
    offloaded(torch.randn(3, WIDTH), plan, RouteContext(phase="decode", iteration=1))
    assert offloaded.engine.asked == [(3, 1, 3, False), ([20, 23], [2, 1], [0, 1])]


@torch.no_grad()
def test_nobody_asked_gives_zeros():
    _, offloaded = made("mlp")
    plan = plan_of([[2, 1]], kept=torch.zeros(1, 2, dtype=torch.bool))
    x = torch.randn(1, WIDTH)
    assert torch.equal(offloaded(x, plan, RouteContext()), torch.zeros(1, WIDTH))
    assert offloaded.unweighted((), x, plan, RouteContext()).shape == (0, WIDTH)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(), (1,)], ids=str)
@pytest.mark.parametrize("tokens", [1, 4])
def test_light_experts_are_neither_asked_for_nor_computed(cuts, tokens):
    body, offloaded = made("mlp", cuts, skip=0.6)
    chosen = [[0, 5], [4, 1], [5, 2], [0, 4]][:tokens]
    weight = torch.tensor([[0.7, 0.3], [0.5, 0.4], [0.2, 0.8], [0.4, 0.6]])[:tokens]
    plan = SparseRouting(expert=torch.tensor(chosen), weight=weight, num_experts=COUNT)
    x = torch.randn(tokens, WIDTH)
    out = offloaded(x, plan, RouteContext())
    # 0.3 of 0.7 and 0.2 of 0.8 are below 0.6; 0.4 of 0.5 and of 0.6 are not.
    asked = {1: [0], 4: [0, 1, 2, 4]}[tokens]
    assert offloaded.engine.asked[1][0] == [3 * COUNT + expert for expert in asked]
    assert offloaded.engine.ledger.skipped == {1: 1, 4: 2}[tokens]
    assert torch.equal(out, body(x, without_light(plan, 0.6)[0], RouteContext()))
    assert not torch.equal(out, body(x, plan, RouteContext()))


def test_training_and_merged_experts_are_refused():
    _, offloaded = made("mlp")
    x = torch.randn(1, WIDTH, requires_grad=True)
    with pytest.raises(ValueError, match=r"serve inference: call the model under torch.no_grad\(\)"):
        offloaded(x, plan_of([[0, 1]]), RouteContext())
    merged = SparseRouting(expert=torch.zeros(1, 1, dtype=torch.long), weight=torch.ones(1, 1), num_experts=1)
    with pytest.raises(
        ValueError, match=r"this router asks for 1 merged ones of 6; a router that merges experts needs"
    ):
        offloaded(x.detach(), merged, RouteContext())


def test_they_hold_no_weights_of_their_own():
    _, offloaded = made("mlp")
    assert offloaded.tensors() == () and list(offloaded.parameters()) == [] and offloaded.state_dict() == {}
    assert repr(offloaded) == "OffloadedExperts(6 experts, 6 slots for all layers)"
