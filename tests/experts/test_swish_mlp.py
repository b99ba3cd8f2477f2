"""Swish experts: one by hand, and many against one linear map after the other."""

import math

import pytest
import torch
from torch.nn.functional import linear, silu

from workbench.core import RouteContext, SparseRouting
from workbench.experts.swish_mlp import SwishMLPExperts


def test_one_expert_by_hand():
    body = SwishMLPExperts(1, 2, hidden=1)
    body.up.data = torch.tensor([[[9.0]], [[2.0]]])
    body.down.data = torch.tensor([[[9.0]], [[5.0]]])
    plan = SparseRouting.from_topk(torch.tensor([[1]]), torch.tensor([[0.5]]), num_experts=2)
    out = body(torch.ones(1, 1), plan, RouteContext())
    # weight * down * swish(up): there is no gate branch.
    assert math.isclose(out.item(), 0.5 * 5 * 2 / (1 + math.exp(-2)), rel_tol=1e-6)


def test_it_agrees_with_the_dense_sum_over_experts_and_so_do_its_gradients(assert_close):
    body, x = SwishMLPExperts(6, 4, hidden=5), torch.randn(9, 6)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    weight = torch.rand(9, 4) * (torch.rand(9, 4) < 0.6)
    plan = SparseRouting.from_mask(weight > 0, weight)
    dense = sum(weight[:, e, None] * linear(silu(linear(x, body.up[e])), body.down[e]) for e in range(4))
    out = body(x, plan, RouteContext())
    assert_close(out, dense)
    ours, theirs = (torch.autograd.grad(y.square().sum(), tuple(body.parameters())) for y in (out, dense))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_inputs_are_what_each_matrix_of_an_expert_multiplies():
    body, rows = SwishMLPExperts(6, 4, hidden=5), torch.randn(3, 6)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    first, second = body.inputs((body.up[2], body.down[2]), rows)
    assert first is rows
    expected = body.rows(body.tensors(), rows, torch.tensor([0, 0, 3, 0]))
    torch.testing.assert_close(second @ body.down[2].T, expected, rtol=1e-4, atol=1e-4)


def test_an_expert_has_two_matrices_and_nothing_else():
    shapes = {name: tuple(p.shape) for name, p in SwishMLPExperts(6, 4, hidden=5).named_parameters()}
    assert shapes == {"up": (4, 5, 6), "down": (4, 6, 5)}


@torch.no_grad()
@pytest.mark.parametrize("hidden", [5, 8, 24])
def test_an_expert_computes_the_same_bits_whoever_runs_with_it(hidden):
    body, counts = SwishMLPExperts(6, 4, hidden=hidden), torch.tensor([3, 1, 7, 2])
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    rows = torch.randn(13, 6)
    together = body.rows(body.tensors(), rows, counts)
    start = 0
    for expert, count in enumerate(counts.tolist()):
        alone = torch.zeros(4, dtype=torch.long)
        alone[expert] = count
        part = body.rows(body.tensors(), rows[start : start + count], alone)
        assert torch.equal(part, together[start : start + count])
        start += count
