"""The smaller kernels beside what PyTorch offers for the same, in turns; with backward where there is one.

The last columns are how far both results are from PyTorch's in float64 on the same numbers, gradients included.
"""

import os
import statistics
import time
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from workbench_kernels import (
    AttentionWeights,
    BlockWeights,
    ChoiceGate,
    TokenAttention,
    TokenStep,
    attention,
    backend_of,
    cross_entropy,
    grouped_mm,
    linear,
    offsets_of,
    plan_routing,
    rms_norm,
    token_choice,
    token_linear,
    token_mlp,
    topk_gate,
)

ROUNDS = 15


class Kind(NamedTuple):
    """Numbers are rounded to one dtype and computed with in another: float64 sees what the others see."""

    rounded: torch.dtype
    dtype: torch.dtype


def leaf(kind, *shape, std=1.0):
    return normal(kind, *shape, std=std).requires_grad_()


def normal(kind, *shape, std=1.0):
    return (torch.randn(shape) * std).to(kind.rounded).to(kind.dtype)


def learn(function, *leaves):
    def run():
        for one in leaves:
            one.grad = None
        out = function()
        out.backward(torch.ones_like(out))
        return out.detach(), *(one.grad for one in leaves)

    return run


def learning(name, ours, theirs, *leaves):
    """Two functions of the same leaves, forward and backward."""
    return f"{name}, learns", *(learn(partial(function, *leaves), *leaves) for function in (ours, theirs))


def distance(found, wanted):
    """Relative Frobenius distance of the parts of two results, of which only one may have a name for them."""
    pairs = zip(*(one if isinstance(one, tuple) else (one,) for one in (found, wanted)), strict=True)
    gaps = [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs if a.shape == b.shape]
    assert gaps, "nothing to compare"
    return max(gaps)


def plain_token(x, weight, gate_up, down, expert):
    total = torch.zeros_like(x)
    for slot, index in enumerate(expert[0].tolist()):
        gate, up = F.linear(x, gate_up[index]).chunk(2, -1)
        total += F.linear(F.silu(gate) * up, down[index]) * weight[:, slot, None]
    return total


def own_plan(expert):
    plan = plan_routing(expert, 64)
    return plan.rows, plan.row_of, plan.offsets


def sorted_plan(expert):
    order = expert.flatten().argsort(stable=True)
    row_of = torch.empty_like(order)
    row_of[order] = torch.arange(order.numel())
    counts = torch.bincount(expert.flatten(), minlength=64)
    return order // expert.shape[1], row_of.view_as(expert), F.pad(counts.cumsum(0), (1, 0))


def plain_grouped(rows, weight, offsets):
    if rows.dtype != torch.float64:
        return F.grouped_mm(rows, weight.transpose(1, 2), offs=offsets[1:])
    parts = rows.split(offsets.diff().tolist())
    return torch.cat([part @ matrix.t() for part, matrix in zip(parts, weight, strict=True)])


def plain_attention(weights, stream, keys, values, cosine, sine, length):
    normed = F.rms_norm(stream, stream.shape[-1:], weights.gain, 1e-6)
    query = F.linear(normed, weights.query).view(1, -1, 1, 64)
    key = F.linear(normed, weights.key).view(1, -1, 1, 64)
    halves = [turn(one, cosine, sine) for one in (query, key)]
    keys[:, length - 1] = halves[1][:, :, 0]
    values[:, length - 1] = F.linear(normed, weights.value).view(1, -1, 64)
    before = [cache[:, :length].transpose(1, 2) for cache in (keys, values)]
    mixed = F.scaled_dot_product_attention(halves[0], *before, enable_gqa=True)
    return stream + F.linear(mixed.flatten(1), weights.output)


def turn(heads, cosine, sine):
    left, right = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-right, left), -1) * sine


@torch.no_grad()
def attention_pair(kind):
    matrix = [normal(kind, rows, 256, std=0.05) for rows in (256, 128, 128, 256)]
    weights = AttentionWeights(torch.ones(256, dtype=kind.dtype), *matrix)
    stream, angle = normal(kind, 1, 256), torch.randn(1, 32).repeat(1, 2)
    cosine, sine = angle.cos().to(kind.dtype), angle.sin().to(kind.dtype)
    keys, values = normal(kind, 2, 1, 256, 2, 64).unbind(0)

    @torch.no_grad()
    def theirs():
        return plain_attention(weights, stream, keys, values, cosine, sine, 200)

    if kind.dtype == torch.float64:
        return theirs, theirs
    ready = TokenAttention(weights, channels=64, epsilon=1e-6)

    @torch.no_grad()
    def ours():
        return ready(stream, keys, values, cosine=cosine, sine=sine, length=200)[0]

    return ours, theirs


def plain_choice(x, gate):
    logit = F.linear(x, gate)
    weight, expert = logit.softmax(-1).topk(2)
    return weight / weight.sum(-1, keepdim=True), expert


@torch.no_grad()
def step_pair(kind):
    def block():
        matrix = [normal(kind, rows, 256, std=0.05) for rows in (256, 128, 128, 256)]
        stacks = normal(kind, 16, 1024, 256, std=0.05), normal(kind, 16, 256, 512, std=0.05)
        attention, gate = AttentionWeights(gain, *matrix), ChoiceGate(normal(kind, 16, 256), 2)
        return BlockWeights(attention, gain, gate, *stacks)

    gain, vocabulary = torch.ones(256, dtype=kind.dtype), normal(kind, 4096, 256)
    blocks = [block() for _ in range(4)]
    caches = [tuple(normal(kind, 2, 1, 256, 2, 64).unbind(0)) for _ in blocks]
    angle = torch.randn(1, 32).repeat(1, 2)
    turn = {"cosine": angle.cos().to(kind.dtype), "sine": angle.sin().to(kind.dtype), "length": 200}

    @torch.no_grad()
    def theirs():
        stream = vocabulary[9:10]
        for block, (keys, values) in zip(blocks, caches, strict=True):
            stream = plain_attention(block.attention, stream, keys, values, turn["cosine"], turn["sine"], 200)
            x = F.rms_norm(stream, (256,), block.gain, 1e-6)
            weight, expert = plain_choice(x, block.gate.weight)
            stream = stream + plain_token(x, weight, block.gate_up, block.down, expert)
        return F.linear(F.rms_norm(stream, (256,), gain, 1e-6), vocabulary)

    if kind.dtype == torch.float64:
        return theirs, theirs
    step = TokenStep(blocks, embedding=vocabulary, gain=gain, head=vocabulary, channels=64, epsilon=1e-6)
    started = step.start(caches)

    @torch.no_grad()
    def ours():
        return started(9, **turn)[0][0]

    return ours, theirs


def sorting_pairs(kind):
    expert = torch.rand(4096, 64).topk(8).indices
    yield "plan_routing, 4096 x 8 of 64", lambda: own_plan(expert), lambda: sorted_plan(expert)
    logits = leaf(kind, 4096, 64)
    yield learning("topk_gate, 4096 x 64", lambda x: topk_gate(x, 8)[0], lambda x: x.softmax(-1).topk(8)[0], logits)


def grouped_pairs(kind, name):
    offsets = offsets_of(torch.full((16,), 512)).int()
    rows, weight = leaf(kind, 8192, 256), leaf(kind, 16, 512, 256, std=0.05)
    turned = weight.detach().mT.contiguous().mT.requires_grad_()
    for matrix, how in ((weight, ""), (turned, ", turned")):
        ours, theirs = partial(grouped_mm, offsets=offsets), partial(plain_grouped, offsets=offsets)
        yield learning(f"grouped_mm, 16 x 512 x 256 x 512{how}{name}", ours, theirs, rows, matrix)


def linear_pairs(kind):
    rows, weight = leaf(kind, 4096, 256), leaf(kind, 1024, 256, std=0.05)
    yield learning("linear, 4096 x 256 x 1024", linear, F.linear, rows, weight)
    ours, theirs = (torch.autocast("cpu", torch.bfloat16)(function) for function in (linear, F.linear))
    yield learning("linear, 4096 x 256 x 1024, under autocast", ours, theirs, rows, weight)


def plain_causal(query, key, value, cosine, sine):
    cosine, sine = (part.view(*query.shape[:2], 1, -1).to(query.dtype) for part in (cosine, sine))
    heads = (one.transpose(1, 2) for one in (turn(query, cosine, sine), turn(key, cosine, sine), value))
    return F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)


def attention_pairs(kind, name):
    for sequences, positions in ((16, 256), (1, 2048)):
        leaves = [leaf(kind, sequences, positions, 4, 64) for _ in range(3)]
        angle = torch.arange(positions).repeat(sequences).unsqueeze(1) / 10_000 ** (torch.arange(32) / 32).repeat(2)
        cosine, sine = angle.cos(), angle.sin()
        ours, theirs = partial(attention, turn=(cosine, sine)), partial(plain_causal, cosine=cosine, sine=sine)
        yield learning(f"attention, {sequences} x {positions}, 4 heads of 64{name}", ours, theirs, *leaves)


def row_pairs(kind):
    scores, target = leaf(kind, 4096, 4096), torch.randint(0, 4096, (4096,))
    plain = partial(F.cross_entropy, reduction="none")
    yield learning(
        "cross_entropy, 4096 x 4096", partial(cross_entropy, target=target), partial(plain, target=target), scores
    )
    x, gain = leaf(kind, 4096, 256), torch.ones(256, dtype=kind.dtype).requires_grad_()
    yield learning(
        "rms_norm, 4096 x 256", lambda x, g: rms_norm(x, g, 1e-6), lambda x, g: F.rms_norm(x, (256,), g, 1e-6), x, gain
    )


def token_pairs(kind):
    gate_up, down = normal(kind, 16, 1024, 256, std=0.05), normal(kind, 16, 256, 512, std=0.05)
    one, share, chosen = normal(kind, 1, 256), torch.rand(1, 2).to(kind.dtype), torch.tensor([[3, 9]])
    yield (
        "token_mlp, 1 x 2 of 16, 256 x 512",
        lambda: token_mlp(one, share, gate_up, down, expert=chosen),
        lambda: plain_token(one, share, gate_up, down, chosen),
    )
    yield "TokenAttention, 256 wide, 200 columns", *attention_pair(kind)
    head, gate = normal(kind, 4096, 256), ChoiceGate(normal(kind, 16, 256), 2)
    yield (
        "token_linear, 1 x 256 x 4096",
        torch.no_grad()(lambda: token_linear(one, head)),
        torch.no_grad()(lambda: F.linear(one, head)),
    )
    yield (
        "token_choice, 2 of 16, 256 wide",
        torch.no_grad()(lambda: token_choice(one, gate).weight),
        torch.no_grad()(lambda: plain_choice(one, gate.weight)[0]),
    )
    yield "TokenStep, 4 blocks of 16 experts, 256 wide", *step_pair(kind)


def pairs(wide):
    """Name, ours and theirs: as they are measured, or in float64 on the same numbers."""

    def kind(dtype):
        return Kind(dtype, torch.float64 if wide else dtype)

    torch.manual_seed(0)
    yield from sorting_pairs(kind(torch.float32))
    yield from grouped_pairs(kind(torch.float32), "")
    yield from grouped_pairs(kind(torch.bfloat16), ", bfloat16")
    yield from linear_pairs(kind(torch.float32))
    yield from attention_pairs(kind(torch.float32), "")
    yield from attention_pairs(kind(torch.bfloat16), ", bfloat16")
    yield from row_pairs(kind(torch.float32))
    yield from token_pairs(kind(torch.float32))


def bench_parts_against_pytorch():
    print(
        f"\ncpu, {torch.get_num_threads()} threads, float32 where no other is named, torch {torch.__version__}, "
        f"{ROUNDS} rounds in turn, load {os.getloadavg()[0]:.1f} at the start; {backend_of('cpu').reason}"
    )
    heading = f"{'ours ms':>9}{'PyTorch':>9}{'ratio of least':>16}{'of medians':>12}{'error':>9}{'PyTorch':>9}"
    print(f"{'':56}{heading}")
    # whole lists: both kinds draw their numbers from the same beginning.
    measured, exact_ones = list(pairs(wide=False)), list(pairs(wide=True))
    for (name, ours, theirs), (_, _, truth) in zip(measured, exact_ones, strict=True):
        taken = ([], [])
        for round_ in range(ROUNDS + 2):
            for place, run in zip(taken, (ours, theirs), strict=True):
                began = time.perf_counter()
                run()
                if round_ > 1:
                    place.append(time.perf_counter() - began)
        exact = truth()
        errors = distance(ours(), exact), distance(theirs(), exact)
        least, medians = [min(t) for t in taken], [statistics.median(t) for t in taken]
        print(
            f"{name:56}{least[0] * 1e3:9.3f}{least[1] * 1e3:9.3f}{least[1] / least[0]:16.2f}"
            f"{medians[1] / medians[0]:12.2f}{errors[0]:9.1e}{errors[1]:9.1e}"
        )
