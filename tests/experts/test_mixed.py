"""The model's experts and a router's extra kinds side by side: every assignment by itself, idle kinds not called."""

import pytest
import torch

from workbench.core import RouteContext, SparseRouting
from workbench.core.routing import ExpertBody
from workbench.experts._mixed import MixedExperts
from workbench.experts.constant import ConstantExperts
from workbench.experts.copy import CopyExperts
from workbench.experts.mlp import MLPExperts
from workbench.experts.zero import ZeroExperts

WIDTH, KINDS = 4, 8  # three SwiGLU experts, two constant, one copy, two zero.


@pytest.fixture
def mixed() -> MixedExperts:
    body = MLPExperts(WIDTH, 3, hidden=5)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    return MixedExperts(body, (ConstantExperts(WIDTH, 2), CopyExperts(WIDTH, 1), ZeroExperts(WIDTH, 2)))


def by_hand(mixed: MixedExperts, row: torch.Tensor, expert: int) -> torch.Tensor:
    """One row after one expert, by the formula of its kind."""
    if expert < 3:
        gate, up = (mixed.experts.gate_up[expert] @ row).chunk(2)
        return mixed.experts.down[expert] @ (torch.nn.functional.silu(gate) * up)
    if expert < 5:
        own, fixed = (mixed.extras[0].mix[expert - 3] @ row).softmax(-1)
        return own * row + fixed * mixed.extras[0].vector[expert - 3]
    return row if expert == 5 else torch.zeros_like(row)


def test_the_output_is_the_sum_over_assignments_whatever_the_kind(mixed, assert_close):
    expert, weight = torch.rand(20, KINDS).argsort(-1)[:, :3], torch.rand(20, 3)
    keep = torch.rand(20, 3) < 0.7
    plan = SparseRouting.from_topk(expert, weight * keep, keep=keep, num_experts=KINDS)
    x = torch.randn(20, WIDTH)
    expected = torch.zeros_like(x)
    for t in range(20):
        for k in range(3):
            if keep[t, k]:
                expected[t] += (weight[t, k] * by_hand(mixed, x[t], int(expert[t, k]))).detach()
    assert_close(mixed(x, plan, RouteContext()).detach(), expected)


def test_a_kind_without_rows_is_not_called(mixed, monkeypatch):
    called = []
    for name, kind in zip(("mlp", "constant", "copy", "zero"), (mixed.experts, *mixed.extras), strict=True):
        real = kind.run
        monkeypatch.setattr(kind, "run", lambda *a, _real=real, _name=name: called.append(_name) or _real(*a))
    plan = SparseRouting.from_topk(torch.tensor([[0, 5], [1, 5]]), torch.ones(2, 2), num_experts=KINDS)
    mixed(torch.randn(2, WIDTH), plan, RouteContext())
    assert called == ["mlp", "copy"]


def test_given_tensors_replace_its_own(mixed, assert_close):
    plan = SparseRouting.from_topk(torch.tensor([[0, 4], [3, 7]]), torch.rand(2, 2), num_experts=KINDS)
    x, zeros = torch.randn(2, WIDTH), tuple(tuple(torch.zeros_like(t) for t in kind) for kind in mixed.tensors())
    assert isinstance(mixed, ExpertBody)
    out = mixed.run(zeros, x, plan, RouteContext())
    # of experts whose tensors are all zero only the constant ones give anything: half of the token.
    assert_close(out, 0.5 * x * torch.stack((plan.weight[0, 1], plan.weight[1, 0])).unsqueeze(-1))


def test_no_tokens_give_no_rows(mixed):
    plan = SparseRouting.from_topk(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2), num_experts=KINDS)
    assert mixed(torch.zeros(0, WIDTH), plan, RouteContext()).shape == (0, WIDTH)
