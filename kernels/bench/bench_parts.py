"""The smaller kernels beside what PyTorch offers for the same, in turns; with backward where there is one."""

import statistics
import time

import torch
import torch.nn.functional as F
from workbench_kernels import (
    backend_of,
    cross_entropy,
    grouped_mm,
    offsets_of,
    plan_routing,
    rms_norm,
    token_mlp,
    topk_gate,
)

ROUNDS = 15


def leaf(*shape, std=1.0):
    return (torch.randn(shape) * std).requires_grad_()


def learn(function, *leaves):
    def run():
        for one in leaves:
            one.grad = None
        out = function()
        out.backward(torch.ones_like(out))

    return run


def plain_token(x, weight, gate_up, down, expert):
    total = torch.zeros_like(x)
    for slot, index in enumerate(expert[0].tolist()):
        gate, up = F.linear(x, gate_up[index]).chunk(2, -1)
        total += F.linear(F.silu(gate) * up, down[index]) * weight[:, slot, None]
    return total


def sorted_plan(expert):
    order = expert.flatten().argsort(stable=True)
    row_of = torch.empty_like(order)
    row_of[order] = torch.arange(order.numel())
    return order // expert.shape[1], row_of, torch.bincount(expert.flatten(), minlength=64)


def plain_gate(logits):
    return logits.softmax(-1).topk(8)[0]


def pairs():
    torch.manual_seed(0)
    expert = torch.rand(4096, 64).topk(8).indices
    yield "plan_routing, 4096 x 8 of 64", lambda: plan_routing(expert, 64), lambda: sorted_plan(expert)
    logits = leaf(4096, 64)
    yield (
        "topk_gate, 4096 x 64, learns",
        learn(lambda: topk_gate(logits, 8)[0], logits),
        learn(lambda: plain_gate(logits), logits),
    )
    rows, weight = leaf(8192, 256), leaf(16, 512, 256, std=0.05)
    counts = torch.full((16,), 512)
    ends, offsets = counts.cumsum(0).int(), offsets_of(counts)
    yield (
        "grouped_mm, 16 x 512 x 256 x 512, learns",
        learn(lambda: grouped_mm(rows, weight, offsets), rows, weight),
        learn(lambda: F.grouped_mm(rows, weight.transpose(1, 2), offs=ends), rows, weight),
    )
    scores, target = leaf(4096, 4096), torch.randint(0, 4096, (4096,))
    yield (
        "cross_entropy, 4096 x 4096, learns",
        learn(lambda: cross_entropy(scores, target), scores),
        learn(lambda: F.cross_entropy(scores, target, reduction="none"), scores),
    )
    x, gain = leaf(4096, 256), torch.ones(256, requires_grad=True)
    yield (
        "rms_norm, 4096 x 256, learns",
        learn(lambda: rms_norm(x, gain, 1e-6), x, gain),
        learn(lambda: F.rms_norm(x, (256,), gain, 1e-6), x, gain),
    )
    gate_up, down = torch.randn(16, 1024, 256) * 0.05, torch.randn(16, 256, 512) * 0.05
    one, share, chosen = torch.randn(1, 256), torch.rand(1, 2), torch.tensor([[3, 9]])
    yield (
        "token_mlp, 1 x 2 of 16, 256 x 512",
        lambda: token_mlp(one, share, gate_up, down, expert=chosen),
        lambda: plain_token(one, share, gate_up, down, chosen),
    )


def bench_parts_against_pytorch():
    print(
        f"\ncpu, {torch.get_num_threads()} threads, float32, torch {torch.__version__}, {ROUNDS} rounds in turn; "
        f"{backend_of('cpu').reason}"
    )
    print(f"{'':44}{'ours ms':>9}{'PyTorch':>9}{'ratio of least':>16}{'of medians':>12}")
    for name, ours, theirs in pairs():
        taken = ([], [])
        for round_ in range(ROUNDS + 2):
            for place, run in zip(taken, (ours, theirs), strict=True):
                began = time.perf_counter()
                run()
                if round_ > 1:
                    place.append(time.perf_counter() - began)
        least, medians = [min(t) for t in taken], [statistics.median(t) for t in taken]
        print(
            f"{name:44}{least[0] * 1e3:9.3f}{least[1] * 1e3:9.3f}{least[1] / least[0]:16.2f}"
            f"{medians[1] / medians[0]:12.2f}"
        )
