"""The sources built for arm64 as `build.py` builds them there, under emulation, call for call beside this machine's.

What the engine calls is recorded, made again by `replay.cpp` on the emulated processor, and what both leave behind is
compared. Other tests hold this machine's numbers against float64.
"""

import shutil

import numpy as np
import pytest
import torch
from workbench_kernels import AttentionWeights, BlockWeights, ChoiceGate, paging, plan_routing
from workbench_kernels.cpu import engine, library, step, tokens
from workbench_kernels.token_choice import SCORES

MISSING = [name for name in ("aarch64-linux-gnu-g++", "qemu-aarch64-static") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {' and no '.join(MISSING)}: apt-get install g++-aarch64-linux-gnu qemu-user-static"
    ),
    pytest.mark.skipif(not library.availability()[0], reason="no C++ kernels here"),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Relative distance of two roundings of the same numbers.
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 3.5e-3, torch.float16: 7.5e-4}


def check(recorder, replay, names):
    """Every call gives there what it gave here, and calls of all the names, and of no other, have left something."""
    wrote = [call for call in recorder.calls if call.left != [block.content for block in call.seen]]
    assert {call.name.removeprefix("workbench_") for call in wrote} == set(names)
    for call, (result, left) in zip(recorder.calls, replay(recorder.calls), strict=True):
        assert result == call.result
        for block, here, there in zip(call.seen, call.left, left, strict=True):
            what = f"{call.name} {call.is_backward}, {block.dtype}"
            same(what, block.dtype, block.content, here, there)


def same(what: str, dtype: object, before: bytes, here: bytes, there: bytes) -> None:
    """What was written has the same numbers; the rest is as it was, whatever lay there."""
    if dtype not in DTYPES:
        assert here == there, what
        return
    width = torch.tensor([], dtype=dtype).element_size()
    bits = [np.frombuffer(one, f"u{width}") for one in (before, here, there)]
    is_written = torch.from_numpy((bits[0] != bits[1]) | (bits[0] != bits[2]))
    wanted, found = (torch.frombuffer(bytearray(one), dtype=dtype)[is_written].double() for one in (here, there))
    assert torch.equal(found.isnan(), wanted.isnan()), what
    gap, size = (float(one.nan_to_num().norm()) for one in (found - wanted, wanted))
    assert gap <= LIMITS[dtype] * size, f"{what}: {gap:.1e} of {size:.1e}"


def test_a_difference_is_seen_beside_what_was_there_before():
    before, here = torch.tensor([1e30, 0.0, 0.0]), torch.tensor([1e30, 1.0, 2.0])

    def compare(there):
        same("a call", torch.float32, *(one.numpy().tobytes() for one in (before, here, there)))

    compare(here * torch.tensor([1, 1 + 1e-6, 1 - 1e-6]))
    for factor in ([1, 1 + 1e-5, 1], [1 + 1e-5, 1, 1], [1, 1, torch.nan]):
        with pytest.raises(AssertionError, match="a call"):
            compare(here * torch.tensor(factor))


def normal(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_of_experts(recorder, replay, dtype):
    sizes = ((90, 64, 40, "silu"), (70, 33, 13, "gelu"), (3, 64, 40, "gelu_tanh"), (40, 16, 8, "relu"))
    for tokens_, width, hidden, activation in sizes:
        x, weight = normal(tokens_, width, dtype=dtype) * width**0.5, torch.rand(tokens_, 2)
        gate_up, down = normal(5, 2 * hidden, width, dtype=dtype), normal(5, width, hidden, dtype=dtype)
        plan = plan_routing(torch.rand(tokens_, 5).argsort(-1)[:, :2], 5)
        _, hidden_ = engine.forward(x, weight, gate_up, down, plan, activation=activation, keeps_hidden=True)
        needs = (True,) * 4
        grad = normal(tokens_, width, dtype=dtype)
        engine.backward(grad, x, weight, gate_up, down, hidden_, plan, activation=activation, needs=needs, into=None)
    check(recorder, replay, {"plan", "moe"})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grouped_products(recorder, replay, dtype):
    offsets = torch.tensor([0, 3, 3, 40, 75], dtype=torch.int32)
    rows, weight = normal(80, 33, dtype=dtype), normal(4, 50, 33, dtype=dtype)
    for matrix in (weight, weight.mT.contiguous().mT):
        out = engine.grouped_mm(rows, matrix, offsets)
        engine.grouped_mm_backward(out, rows, matrix, offsets, (True, True))
    check(recorder, replay, {"grouped"})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_work_on_rows(recorder, replay, dtype):
    x, target = 3 * normal(70, 37, dtype=dtype), torch.arange(70) % 39 - 1
    out, scale = engine.rms_norm(x, torch.rand(37) + 0.5, 1e-6, keeps_scale=True)
    engine.rms_norm_backward(out, x, torch.rand(37) + 0.5, scale, (True, True))
    _, log_sum = engine.cross_entropy(x, target)
    engine.cross_entropy_backward(torch.rand(70), x, target, log_sum)
    for score, bias in (("softmax", None), ("sigmoid", torch.rand(37)), ("softmax", torch.rand(37))):
        _, expert, shift = engine.topk_gate(x, 5, score, bias, True, 1.5, keeps_shift=True)
        engine.topk_gate_backward(torch.rand(70, 5), x, expert, shift, score, True, 1.5)
    check(recorder, replay, {"norm", "entropy", "topk"})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_single_tokens(recorder, replay, dtype):
    x, gate_up, down = normal(1, 37, dtype=dtype), normal(7, 2 * 19, 37, dtype=dtype), normal(7, 37, 19, dtype=dtype)
    for score in SCORES:
        gate = ChoiceGate(4 * normal(7, 37, dtype=dtype), 3, score, selection_bias=torch.rand(7))
        choice = tokens.ready_choice(gate.place, dtype)(x, torch.rand(7))
        tokens.experts(x, choice.weight, gate_up, down, choice.expert)
    tokens.linear(normal(4, 37, dtype=dtype), normal(50, 37, dtype=dtype))
    for norm, bias in ((16, None), (64, normal(64, dtype=dtype)), (None, None)):
        gain = None if norm is None else torch.rand(norm)
        key_gain = None if norm is None else torch.rand(16 if norm == 16 else 32)
        matrices = [normal(*shape, dtype=dtype) for shape in ((64, 37), (32, 37), (32, 37), (37, 64))]
        biases = (None,) * 3 if bias is None else (bias, *(normal(32, dtype=dtype) for _ in range(2)))
        names = dict(zip(("query_bias", "key_bias", "value_bias"), biases, strict=True))
        weights = AttentionWeights(torch.rand(37), *matrices, query_gain=gain, key_gain=key_gain, **names)
        ready = tokens.ready_attention(weights, 16, 1e-6, 0.5 if bias is not None else 0.0)
        keys, values = normal(2, 9, 2, 16, dtype=dtype), normal(2, 9, 2, 16, dtype=dtype).flip(0)
        mask = torch.tensor([[True] * 9, [False, True] * 4 + [True]])
        turn = torch.rand(2, 16), torch.rand(2, 16)
        tokens.token_attention(ready, normal(2, 37, dtype=dtype), keys, values, turn, 7, mask)
    check(recorder, replay, {"choice", "experts", "linear", "attention"})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_whole_step(recorder, replay, dtype):
    blocks = []
    for _ in range(2):
        shapes = ((32, 37), (16, 37), (16, 37), (37, 32))
        attention = AttentionWeights(torch.rand(37) + 0.5, *(normal(*shape, dtype=dtype) for shape in shapes))
        gate = ChoiceGate(2 * normal(5, 37, dtype=dtype), 2)
        stacks = normal(5, 48, 37, dtype=dtype), normal(5, 37, 24, dtype=dtype)
        blocks.append(BlockWeights(attention, torch.rand(37) + 0.5, gate, *stacks))
    ready = [tokens.ready_attention(one.attention, 16, 1e-6, 0.0) for one in blocks]
    caches = [tuple(normal(2, 1, 8, 1, 16, dtype=dtype).unbind()) for _ in blocks]
    embedding, head, gain = normal(9, 37, dtype=dtype), normal(11, 37, dtype=dtype), torch.rand(37) + 0.5
    whole = step.Step(blocks, ready, caches, embedding=embedding, gain=gain, head=head, epsilon=1e-6)
    whole.run(3, torch.rand(1, 16), torch.rand(1, 16), 5)
    check(recorder, replay, {"step"})


def test_counts_of_pages(recorder, replay):
    chosen = np.random.default_rng(0).permuted(np.tile(np.arange(12, dtype=np.int32), (60, 1)), axis=1)[:, :3]
    page, start = np.sort(chosen, axis=1).ravel(), np.arange(0, 181, 3)
    for policy in ("lru", "lfu", "min"):
        paging.paging_counts(page, start, (1, 4, 9), num_pages=12, policy=policy)
        paging.paging_events(page, start, 5, num_pages=12, policy=policy)
    for policy in ("lru", "lfu", "window", "min"):
        paging.stack_hits(page, start, np.array([0, 30, 60]), num_pages=12, policy=policy)
    check(recorder, replay, {"paging", "stack"})
