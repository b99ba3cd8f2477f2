"""Copy experts: a token times the weight it sends."""

import torch

from workbench.core import RouteContext, SparseRouting
from workbench.experts.copy import CopyExperts

X = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]])


def test_weight_g_gives_g_times_the_token(assert_close):
    plan = SparseRouting.from_topk(torch.tensor([[0], [1], [0]]), torch.tensor([[0.3], [1.0], [0.0]]), num_experts=2)
    out = CopyExperts(2, 2)(X, plan, RouteContext())
    assert_close(out, torch.tensor([[0.3, -0.6], [3.0, 4.0], [0.0, 0.0]]))


def test_two_weights_add_and_a_dropped_one_counts_nothing(assert_close):
    keep = torch.tensor([[True, True], [True, False], [False, False]])
    plan = SparseRouting.from_topk(torch.tensor([[0, 1]] * 3), torch.full((3, 2), 0.5), keep=keep, num_experts=2)
    out = CopyExperts(2, 2)(X, plan, RouteContext())
    assert_close(out, X * torch.tensor([[1.0], [0.5], [0.0]]))


def test_the_weight_learns():
    weight = torch.full((3, 1), 0.5, requires_grad=True)
    plan = SparseRouting.from_topk(torch.zeros(3, 1, dtype=torch.long), weight, num_experts=1)
    CopyExperts(2, 1)(X, plan, RouteContext()).sum().backward()
    assert weight.grad.flatten().tolist() == X.sum(-1).tolist()


def test_a_row_comes_back_as_it_is():
    keep = torch.tensor([[True, True], [False, True], [False, False]])
    plan = SparseRouting.from_topk(torch.tensor([[1, 0]] * 3), torch.full((3, 2), 0.5), keep=keep, num_experts=2)
    assert torch.equal(CopyExperts(2, 2).unweighted((), X, plan, RouteContext()), X[[0, 1, 0]])
