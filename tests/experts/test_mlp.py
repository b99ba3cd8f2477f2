"""SwiGLU experts as the model holds them: shapes, the fused call, and the short path of one token."""

import math

import pytest
import torch
from workbench_kernels.reference import moe_mlp_ref

import workbench.experts.mlp as module
from workbench.core import RouteContext, SparseRouting
from workbench.experts.mlp import MLPExperts


@pytest.fixture
def experts() -> MLPExperts:
    body = MLPExperts(6, 4, hidden=5)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    return body


def plan_of(tokens: int, *, drops: bool = False) -> SparseRouting:
    generator = torch.Generator().manual_seed(0)
    expert = torch.rand(tokens, 4, generator=generator).argsort(-1)[:, :2]
    keep = torch.rand(tokens, 2, generator=generator) < 0.6 if drops else None
    return SparseRouting.from_topk(expert, torch.rand(tokens, 2, generator=generator), keep=keep, num_experts=4)


@torch.no_grad()
def test_inputs_are_what_each_matrix_of_an_expert_multiplies(experts):
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    counts = torch.tensor([0, 3, 0, 0])
    gate_up, down = (tensor[1] for tensor in experts.tensors())
    first, second = experts.inputs((gate_up, down), rows)
    assert first is rows
    plan = SparseRouting.identity(counts)
    expected = experts.unweighted(experts.tensors(), rows, plan, RouteContext())
    assert torch.allclose(second @ down.T, expected, atol=1e-5)


def test_parameters_are_two_stacks_with_gate_above_up(experts):
    assert {name: tuple(p.shape) for name, p in experts.named_parameters()} == {
        "gate_up": (4, 10, 6),
        "down": (4, 6, 5),
    }
    assert [t is p for t, p in zip(experts.tensors(), experts.parameters(), strict=True)] == [True, True]


def test_one_expert_by_hand():
    body = MLPExperts(1, 2, hidden=1)
    body.gate_up.data = torch.tensor([[[0.0], [0.0]], [[2.0], [3.0]]])
    body.down.data = torch.tensor([[[0.0]], [[5.0]]])
    plan = SparseRouting.from_topk(torch.tensor([[1]]), torch.tensor([[0.5]]), num_experts=2)
    out = body(torch.ones(1, 1), plan, RouteContext())
    # weight * down * silu(gate) * up, gate before up.
    assert math.isclose(out.item(), 0.5 * 5 * (2 / (1 + math.exp(-2))) * 3, rel_tol=1e-6)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 9])
def test_they_agree_with_the_reference(experts, assert_close, tokens, drops):
    plan, x = plan_of(tokens, drops=drops), torch.randn(tokens, 6)
    chosen = plan.expert if plan.kept is None else plan.expert.masked_fill(~plan.kept, -1)
    reference = moe_mlp_ref(x, chosen, plan.weight, *experts.tensors())
    assert_close(experts(x, plan, RouteContext()), reference)
    with torch.no_grad():
        assert_close(experts(x, plan, RouteContext()), reference.detach())


@pytest.mark.parametrize(
    ("tokens", "drops", "may_learn", "is_short"),
    [
        (1, False, False, True),
        (1, False, True, False),
        (1, True, False, False),
        (2, False, False, False),
    ],
)
def test_one_token_without_a_graph_takes_the_short_path(experts, monkeypatch, tokens, drops, may_learn, is_short):
    taken = []
    for name in ("token_mlp", "moe_mlp"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _real=real, _name=name, **k: taken.append(_name) or _real(*a, **k))
    with torch.set_grad_enabled(may_learn):
        experts(torch.randn(tokens, 6), plan_of(tokens, drops=drops), RouteContext())
    assert taken == ["token_mlp" if is_short else "moe_mlp"]


def test_the_short_path_sorts_nothing(experts, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "argsort", lambda *_, **__: pytest.fail("sorted"))
    plan = SparseRouting.from_topk(torch.tensor([[3, 1]]), torch.rand(1, 2), num_experts=4)
    with torch.no_grad():
        experts(torch.randn(1, 6), plan, RouteContext())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_of_half_precision_are_not_rounded_before_they_are_added(experts, dtype):
    experts.to(dtype)
    plan, x = plan_of(9, drops=True), torch.randn(9, 6).to(dtype)
    rows = experts.unweighted(experts.tensors(), x, plan, RouteContext())
    assert rows.dtype == torch.float32
    assert torch.equal(plan.combine(rows).to(dtype), experts(x, plan, RouteContext()))
    assert dtype == torch.float32 or not torch.equal(rows.to(dtype).float(), rows)
