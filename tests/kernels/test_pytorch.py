"""The engine of plain PyTorch: what only it promises."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from workbench_kernels import moe_mlp, parts, plan_routing, products, pytorch
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


CPUS = {"no instructions": (False, False), "pairs": (False, True), "tiles": (True, True)}


@pytest.fixture(params=CPUS)
def cpu(request, monkeypatch):
    """Every way to multiply half precision, whatever this CPU would choose."""
    has_tiles, has_pairs = CPUS[request.param]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_pairs)
    return request.param


class Products(TorchDispatchMode):
    """Counts the matrix products by the dtype of their factors."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_", "bmm", "_linear_pointwise"):
            self.found[args[1].dtype] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rows", [20, 50, 2**20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("adds", [False, True])
def test_an_expert_in_parts_is_the_expert_as_a_whole(monkeypatch, cpu, rows, dtype, adds, distance, accuracy):
    monkeypatch.setattr(parts, "_PART_ELEMENTS", rows * 2 * HIDDEN)
    monkeypatch.setattr(parts, "_LEAST_ROWS", 1)
    leaves, expert = layer(dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    plan = plan_routing(expert, EXPERTS)
    into = tuple(torch.zeros_like(one, requires_grad=False) for one in leaves[2:]) if adds else None
    ours, reference = moe_mlp(*leaves, plan=plan, into=into), moe_mlp_ref(exact[0], plan, *exact[1:])
    of_out, of_gradients = accuracy[dtype]
    assert distance(ours, reference) < of_out
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = torch.autograd.grad(reference, exact, upstream.double())
    ours.backward(upstream)
    found = [leaves[0].grad, leaves[1].grad, *(into or (leaves[2].grad, leaves[3].grad))]
    assert far(found, expected, distance) < of_gradients


@pytest.mark.skipif(not products._has_onednn(), reason="this PyTorch was built without oneDNN")
@pytest.mark.parametrize(
    ("cpu", "forward", "backward"),
    [
        ("no instructions", {torch.float32: 2}, {torch.float32: 4}),
        # the last product of forward is not rounded: in float32, or made twice.
        ("pairs", {torch.bfloat16: 1, torch.float32: 1}, {torch.bfloat16: 4}),
        ("tiles", {torch.bfloat16: 3}, {torch.bfloat16: 4}),
    ],
    indirect=["cpu"],
)
def test_bfloat16_is_multiplied_in_bfloat16_where_the_cpu_can(cpu, forward, backward):
    leaves, expert = layer(torch.bfloat16)
    plan = plan_routing(expert, EXPERTS)
    inputs = [leaf.detach() for leaf in leaves]
    with Products() as made:
        out, hidden = pytorch.forward(*inputs, plan, activation="silu", keeps_hidden=True)
    assert made.found == {dtype: count * EXPERTS for dtype, count in forward.items()}
    with Products() as made:
        pytorch.backward(out, *inputs, hidden, plan, activation="silu", needs=(True,) * 4, into=None)
    assert made.found == {dtype: count * EXPERTS for dtype, count in backward.items()}


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
