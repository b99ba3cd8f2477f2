"""Runs each operator under `torch.compile(fullgraph=True)` and prints, as JSON, how far it is from eager.

A process of its own: the checks of shapes that the tests switch on cannot be traced.
"""

import json
import sys

import torch
from torch.utils.checkpoint import checkpoint
from workbench_kernels import attention, grouped_mm, moe_mlp, permute, plan_routing, unpermute
from workbench_kernels.topk import topk_gate

EXPERTS, WIDTH, HIDDEN = 5, 8, 6


def leaves(tokens=13, dtype=torch.float32):
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    layer = normal(tokens, WIDTH), normal(tokens, 2), normal(EXPERTS, 2 * HIDDEN, WIDTH), normal(EXPERTS, WIDTH, HIDDEN)
    return layer, torch.randint(-1, EXPERTS + 1, (tokens, 2), generator=generator)


def layer(x, weight, gate_up, down, expert, **options):
    return moe_mlp(x, weight, gate_up, down, plan=plan_routing(expert, EXPERTS), **options).sin()


def largest(difference, expected):
    return float(difference.detach().abs().max())


def relative(difference, expected):
    return float((difference.norm() / expected.norm()).detach())


def distance(function, *, shapes=(13,), backend="aot_eager", measure=largest):
    """How far compiled and eager are apart, in the output or a gradient."""
    compiled, worst = torch.compile(function, fullgraph=True, backend=backend), 0.0
    for tokens in shapes:
        inputs, expert = leaves(tokens)
        ours, theirs = compiled(*inputs, expert), function(*inputs, expert)
        pairs = [(ours, theirs)]
        if theirs.requires_grad:
            grads = [torch.autograd.grad(out.sum(), inputs, allow_unused=True) for out in (ours, theirs)]
            pairs += [(a, b) for a, b in zip(*grads, strict=True) if b is not None]
        worst = max([worst, *(measure(a - b, b) for a, b in pairs)])
    return worst


def routed(x, weight, gate_up, down, expert):
    plan = plan_routing(expert, EXPERTS)
    return unpermute(permute(x, plan.rows, plan.row_of).tanh(), plan.rows, plan.row_of, weight)


def grouped(x, weight, gate_up, down, expert):
    plan = plan_routing(expert, EXPERTS)
    return grouped_mm(permute(x, plan.rows, plan.row_of), gate_up, plan.offsets, bias=gate_up[:, :, 0]).sin()


def gated(x, weight, gate_up, down, expert):
    chosen, ids = topk_gate(x, 2, score="sigmoid", normalize=True)
    return layer(x, chosen, gate_up, down, ids)


def attended(x, weight, gate_up, down, expert):
    heads, angle = x.view(1, -1, 2, 4), torch.arange(len(x)).unsqueeze(1) * torch.ones(4)
    return attention(heads, heads[:, :, :1], heads[:, :, 1:].sin(), turn=(angle.cos(), angle.sin()))


def cast(x, weight, gate_up, down, expert):
    # the sine of something large would show nothing but rounding.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return layer(x, weight, gate_up / 4, down / 4, expert).float()


def added_into():
    """The same, with buffers that backward adds to."""
    inputs, expert = leaves()
    buffers = [torch.ones_like(one) for one in inputs[2:]]
    compiled = torch.compile(lambda *args: layer(*args, into=tuple(buffers)), fullgraph=True, backend="aot_eager")
    compiled(*inputs, expert).sum().backward()
    expected = torch.autograd.grad(layer(*inputs, expert).sum(), inputs[2:])
    return max(float((a - 1 - b).abs().max()) for a, b in zip(buffers, expected, strict=True))


CHECKS = {
    "plan_routing": lambda: distance(lambda *args: plan_routing(args[-1], EXPERTS).row_of + 1),
    "topk_gate": lambda: distance(gated),
    "permute": lambda: distance(routed),
    "attention": lambda: distance(attended),
    "grouped_mm": lambda: distance(grouped),
    "moe_mlp": lambda: distance(layer),
    "moe_mlp of other shapes": lambda: distance(layer, shapes=(13, 7, 21, 9)),
    "moe_mlp saving its input": lambda: distance(lambda *args: layer(*args, save="input")),
    # outside of a graph nothing is cast beforehand, and gradients of float32 are not rounded.
    "moe_mlp under autocast": lambda: distance(cast, measure=relative),
    "moe_mlp under a checkpoint": lambda: distance(lambda *args: checkpoint(layer, *args, use_reentrant=False)),
    "moe_mlp by Inductor": lambda: distance(layer, backend="inductor"),
    "moe_mlp into buffers": added_into,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump({name: CHECKS[name]() for name in sys.argv[1:] or CHECKS}, sys.stdout)
