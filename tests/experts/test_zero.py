"""Zero experts: nothing comes back, whatever goes in."""

import torch

from workbench.core import RouteContext, SparseRouting
from workbench.experts.zero import ZeroExperts


def test_nothing_comes_back_and_nothing_is_held():
    body, x = ZeroExperts(4, 2), torch.full((3, 4), torch.inf)
    plan = SparseRouting.from_topk(torch.tensor([[0], [1], [0]]), torch.full((3, 1), 7.0), num_experts=2)
    out = body(x, plan, RouteContext())
    # infinite tokens would leave a NaN if they were multiplied by zero.
    assert out.tolist() == torch.zeros(3, 4).tolist()
    assert list(body.state_dict()) == []
    assert body.tensors() == ()


def test_every_row_is_zero():
    x = torch.full((2, 4), torch.inf)
    plan = SparseRouting.from_topk(torch.tensor([[0, 1], [1, -1]]), torch.ones(2, 2), num_experts=2)
    assert ZeroExperts(4, 2).unweighted((), x, plan, RouteContext()).tolist() == torch.zeros(3, 4).tolist()
