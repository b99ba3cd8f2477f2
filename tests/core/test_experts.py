"""The interface of experts: what the base classes promise to their kinds."""

import pytest
import torch
from torch import nn

from workbench.core import Experts, RouteContext, RowExperts, SparseRouting


class Doubling(RowExperts):
    """Expert e multiplies its rows by factor[e]."""

    def __init__(self, num_experts: int):
        super().__init__(num_experts)
        self.factor = nn.Parameter(torch.arange(1.0, num_experts + 1))

    def tensors(self):
        return (self.factor,)

    def rows(self, tensors, rows, counts):
        return rows * tensors[0].repeat_interleave(counts).unsqueeze(-1)


@pytest.fixture
def plan() -> SparseRouting:
    expert, weight = torch.tensor([[2, 0], [1, 2], [0, 1]]), torch.tensor([[0.5, 0.5], [1.0, 2.0], [0.25, 0.75]])
    keep = torch.tensor([[True, True], [True, True], [True, False]])
    return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=3)


def test_row_experts_dispatch_compute_and_combine(plan):
    x = torch.tensor([[1.0], [10.0], [100.0]])
    out = Doubling(3)(x, plan, RouteContext())
    assert out.flatten().tolist() == [0.5 * 3 + 0.5 * 1, 10 * (1 * 2 + 2 * 3), 100 * 0.25]


def test_experts_need_not_say_what_their_tensors_multiply():
    body = Doubling(3)
    assert body.inputs(body.tensors(), torch.ones(2, 1)) == ()


def test_run_takes_tensors_from_anywhere(plan):
    x = torch.tensor([[1.0], [10.0], [100.0]])
    ours, others = Doubling(3), torch.tensor([0.0, 0.0, 1.0])
    assert ours.run((others,), x, plan, RouteContext()).flatten().tolist() == [0.5, 20, 0]


def test_ids_are_the_model_wide_indices_and_are_not_saved():
    experts = Doubling(3)
    assert experts.ids.tolist() == [0, 1, 2]
    assert list(experts.state_dict()) == ["factor"]
    assert experts.num_experts == 3


@pytest.mark.parametrize(("base", "missing"), [(Experts, "run"), (Experts, "tensors"), (RowExperts, "rows")])
def test_a_kind_must_write_what_the_base_leaves_open(base, missing):
    with pytest.raises(TypeError, match=missing):
        base(2)


def test_the_gradient_reaches_parameters_tokens_and_weights(plan):
    experts, x = Doubling(3), torch.ones(3, 1, requires_grad=True)
    experts(x, plan, RouteContext()).sum().backward()
    assert experts.factor.grad.tolist() == [0.5 + 0.25, 1.0, 0.5 + 2.0]
    assert x.grad.flatten().tolist() == [0.5 * 3 + 0.5 * 1, 1 * 2 + 2 * 3, 0.25]


def test_every_row_is_seen_before_it_is_weighed(plan):
    x = torch.tensor([[1.0], [10.0], [100.0]])
    # rows lie by expert and then by token; the lost assignment has none.
    rows = Doubling(3).unweighted((torch.tensor([1.0, 2.0, 3.0]),), x, plan, RouteContext())
    assert rows.flatten().tolist() == [1, 100, 20, 3, 30]
    assert torch.equal(plan.combine(rows), Doubling(3)(x, plan, RouteContext()))


def test_a_kind_must_say_what_its_rows_are():
    with pytest.raises(TypeError, match="unweighted"):
        type("Half", (Experts,), {"tensors": lambda self: (), "run": lambda self, *rest: None})(2)
