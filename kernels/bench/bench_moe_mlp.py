"""`moe_mlp` beside the plain ways to write the same layer: forward and backward, error beside time.

Peers in one run on the same inputs: a loop over experts with autograd's own indexing, and
`torch.nn.functional.grouped_mm` where torch has it for this device and dtype. Error is the relative
Frobenius distance to float64.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from workbench_kernels import moe_mlp

SHAPES = {"small": (4096, 256, 16, 2, 512), "tiny": (4096, 128, 8, 2, 128), "decode": (8, 256, 16, 2, 512)}
RUNS = 7


def inputs(tokens, width, experts, top_k, hidden, dtype):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, std=1.0):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * std).to(dtype).requires_grad_()

    expert = torch.rand(tokens, experts, generator=generator).topk(top_k).indices
    return (
        normal(tokens, width),
        torch.rand(tokens, top_k, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(),
        normal(experts, 2 * hidden, width, std=width**-0.5),
        normal(experts, width, hidden, std=hidden**-0.5),
    ), expert


def plan(expert, experts):
    order = expert.flatten().argsort(stable=True)
    row_of = torch.empty_like(order)
    row_of[order] = torch.arange(order.numel())
    return order // expert.shape[1], row_of.view_as(expert), torch.bincount(expert.flatten(), minlength=experts)


def ours(tensors, expert):
    rows, row_of, counts = plan(expert, tensors[2].shape[0])
    return moe_mlp(*tensors, rows=rows, row_of=row_of, counts=counts)


def loop(tensors, expert):
    x, weight, gate_up, down = tensors
    out = torch.zeros_like(x)
    for index in range(gate_up.shape[0]):
        token, slot = (expert == index).nonzero(as_tuple=True)
        gate, up = F.linear(x[token], gate_up[index]).chunk(2, -1)
        out = out.index_add(0, token, F.linear(F.silu(gate) * up, down[index]) * weight[token, slot, None])
    return out


def grouped(tensors, expert):
    x, weight, gate_up, down = tensors
    rows, row_of, counts = plan(expert, gate_up.shape[0])
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(x[rows], gate_up.transpose(1, 2), offs=ends).chunk(2, -1)
    out = F.grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=ends)
    return (out[row_of] * weight.unsqueeze(-1)).sum(1)


def timed(function, tensors, expert, grad):
    began = time.perf_counter()
    out = function(tensors, expert)
    forward = time.perf_counter() - began
    out.backward(grad)
    both = time.perf_counter() - began
    grads = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    return forward, both, out.detach(), grads


def distance(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


def bench_moe_mlp():
    peers = {"moe_mlp": ours, "loop over experts": loop, "F.grouped_mm": grouped}
    print(
        f"\ncpu, {torch.get_num_threads()} threads, torch {torch.__version__}, float32, {RUNS} interleaved runs, seed 0"
    )
    print(f"{'shape T/D/E/K/F':>24} {'':20}{'forward ms':>11}{'both ms':>9}{'best':>8}{'error':>10}{'worst grad':>11}")
    for name, shape in SHAPES.items():
        tensors, expert = inputs(*shape, torch.float32)
        exact, _ = inputs(*shape, torch.float64)
        grad = torch.ones_like(tensors[0])
        _, _, truth, true_grads = timed(loop, exact, expert, grad.double())
        results = {peer: [] for peer in peers}
        for _ in range(RUNS):
            for peer, function in peers.items():
                results[peer].append(timed(function, tensors, expert, grad))
        label = f"{name} {'/'.join(map(str, shape))}"
        for peer, runs in results.items():
            worst = max(distance(a, b) for a, b in zip(runs[0][3], true_grads, strict=True))
            print(
                f"{label:>24} {peer:20}{statistics.median(r[0] for r in runs) * 1e3:11.2f}"
                f"{statistics.median(r[1] for r in runs) * 1e3:9.2f}{min(r[1] for r in runs) * 1e3:8.2f}"
                f"{distance(runs[0][2], truth):10.1e}{worst:11.1e}"
            )
