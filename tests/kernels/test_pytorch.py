"""The engine of plain PyTorch: what only it promises."""

import pytest
import torch
from workbench_kernels import moe_mlp, parts, plan_routing
from workbench_kernels.reference import moe_mlp_ref

TOKENS, WIDTH, HIDDEN, EXPERTS = 400, 12, 10, 3


@pytest.fixture(autouse=True)
def this_engine(monkeypatch):
    monkeypatch.setenv("WORKBENCH_KERNELS", "torch")


def layer(dtype):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(dtype).requires_grad_()

    leaves = (
        normal(TOKENS, WIDTH),
        normal(TOKENS, 2),
        normal(EXPERTS, 2 * HIDDEN, WIDTH),
        normal(EXPERTS, WIDTH, HIDDEN),
    )
    return leaves, torch.randint(-1, EXPERTS, (TOKENS, 2), generator=generator)


def far(found, exact, distance):
    return max(distance(a, b) for a, b in zip(found, exact, strict=True))


@pytest.fixture(params=["float32", "the dtype itself"])
def products_in(request, monkeypatch):
    """Both ways to multiply half precision, whatever this CPU would choose."""
    has_tiles = request.param == "the dtype itself"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    return has_tiles


@pytest.mark.parametrize("rows", [7, 50, 2**20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("adds", [False, True])
def test_an_expert_in_parts_is_the_expert_as_a_whole(monkeypatch, products_in, rows, dtype, adds, distance, accuracy):
    monkeypatch.setattr(parts, "_PART_ELEMENTS", rows * 2 * HIDDEN)
    monkeypatch.setattr(parts, "_LEAST_ROWS", 1)
    leaves, expert = layer(dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    plan = plan_routing(expert, EXPERTS)
    into = tuple(torch.zeros_like(one, requires_grad=False) for one in leaves[2:]) if adds else None
    ours, reference = moe_mlp(*leaves, plan=plan, into=into), moe_mlp_ref(exact[0], plan, *exact[1:])
    of_out, of_gradients = accuracy[dtype]
    # PyTorch rounds every product of bfloat16 matrices to bfloat16, and offers nothing else on a CPU.
    of_out = 4.5e-3 if products_in and dtype == torch.bfloat16 else of_out
    assert distance(ours, reference) < of_out
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = torch.autograd.grad(reference, exact, upstream.double())
    ours.backward(upstream)
    found = [leaves[0].grad, leaves[1].grad, *(into or (leaves[2].grad, leaves[3].grad))]
    assert far(found, expected, distance) < of_gradients


def test_an_expert_twice_in_a_token_counts_twice(distance):
    leaves, _ = layer(torch.float64)
    plan = plan_routing(torch.ones(TOKENS, 2, dtype=torch.long), EXPERTS)
    x, weight, gate_up, down = leaves
    once = moe_mlp(
        x, weight.sum(1, keepdim=True), gate_up, down, plan=plan_routing(plan.row_of[:, :1] * 0 + 1, EXPERTS)
    )
    assert distance(moe_mlp(*leaves, plan=plan), once) < 1e-14


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_runs_on_a_gpu_too(dtype, distance, accuracy):
    leaves, expert = layer(dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    there = [leaf.detach().cuda().requires_grad_() for leaf in leaves]
    ours = moe_mlp(*there, plan=plan_routing(expert.cuda(), EXPERTS))
    reference = moe_mlp_ref(exact[0], expert, *exact[1:])
    of_out, of_gradients = accuracy[dtype]
    assert distance(ours.cpu(), reference) < of_out
    grads = torch.autograd.grad(ours.sum(), there), torch.autograd.grad(reference.sum(), exact)
    assert far([one.cpu() for one in grads[0]], grads[1], distance) < of_gradients
