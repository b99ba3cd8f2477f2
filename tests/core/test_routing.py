"""What every kind of routing shows of itself."""

from html.parser import HTMLParser

import pytest
import torch

from workbench.core import Assignments, MergedRouting, Routing, SlotRouting, SparseRouting


@pytest.fixture
def plan() -> SparseRouting:
    expert = torch.tensor([[1, 0], [1, 2], [1, -1]])
    keep = torch.tensor([[True, True], [True, True], [False, False]])
    return SparseRouting.from_topk(expert, torch.full((3, 2), 0.5), keep=keep, num_experts=4)


def test_the_repr_counts_tokens_drops_and_the_busiest_expert(plan):
    assert repr(plan) == (
        "SparseRouting(tokens=3, experts=4, assignments=5, dropped by capacity=1 (20.0%), "
        "busiest expert=1 with 60.0% (even load 25.0%), experts without a token=1)"
    )


def test_the_html_says_the_same_in_a_small_table(plan):
    cells: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data):
            cells.append(data)

    Reader().feed(plan._repr_html_())
    assert cells[0] == "SparseRouting"
    assert dict(zip(cells[1:-1:2], cells[2:-1:2], strict=True)) == {
        "tokens": "3",
        "experts": "4",
        "assignments": "5",
        "dropped by capacity": "1 (20.0%)",
        "busiest expert": "1 with 60.0% (even load 25.0%)",
        "experts without a token": "1",
    }
    assert cells[-1] == "load counts assignments asked for, before capacity"
    assert len(plan._repr_html_()) < 5000


@pytest.mark.parametrize(
    "empty",
    [
        SparseRouting.from_topk(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2), num_experts=3),
        SlotRouting(num_experts=3, dispatch=torch.zeros(0, 3, 1), combine=torch.zeros(0, 3, 1)),
        MergedRouting(num_experts=3, mixture=torch.zeros(0, 3), group=torch.zeros(0, dtype=torch.long)),
    ],
    ids=lambda routing: type(routing).__name__,
)
def test_a_routing_of_no_tokens_can_be_looked_at(empty):
    assert "tokens=0" in repr(empty)
    assert "<table" in empty._repr_html_()


def test_a_decision_cannot_be_changed(plan):
    with pytest.raises(AttributeError, match="cannot assign"):
        plan.expert = plan.expert
    with pytest.raises(AttributeError, match="cannot assign"):
        plan.assignments().weight = None


def test_equality_is_identity_for_records_of_tensors(plan):
    assert plan == plan  # comparing tensors would raise
    assert plan != plan.pick(torch.arange(4))
    assert len({plan, plan}) == 1


def test_fields_beside_the_decision_are_kept_where_given():
    prob, carry, memory = torch.tensor([[0.9, 0.1]]), torch.ones(1, 3), torch.zeros(1, 2)
    plan = SparseRouting.from_mask(
        torch.tensor([[True, False]]),
        prob,
        prob=prob,
        logit=prob.log(),
        carry=carry,
        memory=memory,
        ahead=torch.tensor([[1]]),
    )
    assert plan.prob is prob
    assert (plan.carry is carry, plan.memory is memory, plan.ahead.tolist()) == (True, True, [[1]])


def test_routing_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Routing(num_experts=1)
    assert Assignments.__dataclass_params__.frozen
