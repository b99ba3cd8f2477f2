"""The sources built for arm64 as `build.py` builds them there, under emulation, call for call beside this machine's.

Calls that the engine makes are recorded with the memory that they see, made again by `replay.cpp` on the emulated
processor, and what both leave behind is compared. Other tests hold this machine's numbers against float64.
"""

import ctypes
import gc
import inspect
import platform
import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from workbench_kernels import AttentionWeights, BlockWeights, ChoiceGate, paging, plan_routing
from workbench_kernels.cpu import build, engine, library, step, tokens
from workbench_kernels.token_choice import SCORES

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
MISSING = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
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
RECORD, STEP, PLAIN = range(3)
RECORDS = (library.AttentionCall, library.NormCall, library.ChoiceCall, library.ExpertsCall, library.LinearCall)


class Block(NamedTuple):
    """Memory that a call may see, with the dtype of who owns it."""

    place: int
    content: bytes
    dtype: object


class Call(NamedTuple):
    """A call: what it saw, what it returned and what it left behind."""

    name: str
    is_backward: int
    form: int
    records: list[tuple[int, bytes]]
    seen: list[Block]
    result: int
    left: list[bytes]


class Recorder:
    """Stands for the loaded library, with its least instruction set."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        own = library.kernels()
        functions = {name: self._record(name, function) for name, function in own.functions.items()}
        plain = ("workbench_plan", "workbench_paging", "workbench_stack")
        exports = SimpleNamespace(**{name: self._plain(name, getattr(own.library, name)) for name in plain})
        self.kernels = own._replace(library=exports, functions=functions, tier=0)

    def _record(self, name, function):
        def call(reference, is_backward, tier):
            record = reference._obj
            records = parts(record) if name == "workbench_step" else [(0, bytes(record))]
            form = STEP if name == "workbench_step" else RECORD
            return self._keep(name, is_backward, form, records, [], lambda: function(reference, is_backward, tier))

        return call

    def _plain(self, name, function):
        def call(*arguments):
            words = struct.pack("<10q", *(int(one or 0) for one in (*arguments, *(0,) * (10 - len(arguments)))))
            arrays = [one for one in inspect.currentframe().f_back.f_locals.values() if isinstance(one, np.ndarray)]
            return self._keep(name, 0, PLAIN, [(0, words)], arrays, lambda: function(*arguments))

        return call

    def _keep(self, name, is_backward, form, records, arrays, run):
        seen = memory({word for _, words in records for (word,) in struct.iter_unpack("<q", words)}, arrays)
        result = run()
        left = [ctypes.string_at(one.place, len(one.content)) for one in seen]
        self.calls.append(Call(name, is_backward, form, records, seen, result, left))
        return result


def parts(record: library.StepCall) -> list[tuple[int, bytes]]:
    """The records of a step, each with its kind."""
    kinds = (ctypes.c_int32 * record.count).from_address(record.kinds)
    calls = (ctypes.c_void_p * record.count).from_address(record.calls)
    return [
        (kind, ctypes.string_at(place, ctypes.sizeof(RECORDS[kind]))) for kind, place in zip(kinds, calls, strict=True)
    ]


def memory(places: set[int], arrays: list[np.ndarray]) -> list[Block]:
    """The storages that are pointed at, among all tensors that there are: no call says how long its tensors are."""
    owners = {(one.ctypes.data, one.nbytes): one.dtype for one in arrays}
    for tensor in gc.get_objects():
        if type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            owners.setdefault((storage.data_ptr(), storage.nbytes()), tensor.dtype)
    return [
        Block(start, ctypes.string_at(start, size), dtype)
        for (start, size), dtype in owners.items()
        if any(start <= place < start + size for place in places)
    ]


def places_in(words: bytes, block: Block) -> list[tuple[int, int]]:
    """Where a record points into a block: the word's offset, and the place inside."""
    at = [(8 * index, word - block.place) for index, (word,) in enumerate(struct.iter_unpack("<q", words))]
    return [(offset, inside) for offset, inside in at if 0 <= inside < len(block.content)]


def written(calls: list[Call]) -> bytes:
    """The recording as `replay.cpp` reads it: numbers are 8 bytes."""
    out = [struct.pack("<q", len(calls))]
    for call in calls:
        name = call.name.encode()
        out += [struct.pack("<q", len(name)), name, struct.pack("<qqq", call.is_backward, call.form, len(call.seen))]
        for block in call.seen:
            out += [struct.pack("<q", len(block.content)), block.content]
        out.append(struct.pack("<q", len(call.records)))
        for kind, words in call.records:
            places = [
                (offset, which, inside)
                for which, one in enumerate(call.seen)
                for offset, inside in places_in(words, one)
            ]
            out += [struct.pack("<qq", kind, len(words)), words, struct.pack("<q", len(places))]
            out += [struct.pack("<qqq", *place) for place in places]
    return b"".join(out)


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    """Makes calls again on the emulated processor: the results, and what lies in the blocks afterwards."""
    folder = tmp_path_factory.mktemp("arm64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "aarch64")
        patch.setattr(build, "find_compiler", lambda: COMPILER)
        built = build.build_library(folder)
    driver = folder / "replay"
    source = Path(__file__).with_name("replay.cpp")
    subprocess.run([COMPILER, "-O1", "-std=c++17", str(source), "-o", str(driver), "-ldl"], check=True)
    roots = ["-L", "/usr/aarch64-linux-gnu"]

    def run(calls: list[Call]) -> list[tuple[int, list[bytes]]]:
        (folder / "calls").write_bytes(written(calls))
        command = [EMULATOR, *roots, str(driver), str(built), str(folder / "calls"), str(folder / "left")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
        content, at, found = (folder / "left").read_bytes(), 0, []
        for call in calls:
            (result,) = struct.unpack_from("<q", content, at)
            at, blocks = at + 8, []
            for block in call.seen:
                blocks.append(content[at : at + len(block.content)])
                at += len(block.content)
            found.append((result, blocks))
        assert at == len(content)
        return found

    return run


@pytest.fixture
def recorder(monkeypatch):
    own = Recorder()
    for module in (engine, tokens, paging):
        monkeypatch.setattr(module, "kernels", lambda: own.kernels)
    torch.set_num_threads(2)
    return own


def check(recorder, replay, names):
    """Every call gives there what it gave here, and each of the names was called."""
    assert {call.name.removeprefix("workbench_") for call in recorder.calls} == set(names)
    for call, (result, left) in zip(recorder.calls, replay(recorder.calls), strict=True):
        assert result == call.result
        assert any(here != block.content for here, block in zip(call.left, call.seen, strict=True))
        for block, here, there in zip(call.seen, call.left, left, strict=True):
            same(call, block, here, there)


def same(call: Call, block: Block, here: bytes, there: bytes) -> None:
    """What was written has the same numbers; the rest is as it was, whatever lay there."""
    what = f"{call.name} {call.is_backward}, {block.dtype}"
    if block.dtype not in DTYPES:
        assert here == there, what
        return
    width = torch.tensor([], dtype=block.dtype).element_size()
    bits = [np.frombuffer(one, f"u{width}") for one in (block.content, here, there)]
    is_written = torch.from_numpy((bits[0] != bits[1]) | (bits[0] != bits[2]))
    wanted, found = (torch.frombuffer(bytearray(one), dtype=block.dtype)[is_written].double() for one in (here, there))
    assert torch.equal(found.isnan(), wanted.isnan()), what
    gap, size = (float(one.nan_to_num().norm()) for one in (found - wanted, wanted))
    assert gap <= LIMITS[block.dtype] * size, f"{what}: {gap:.1e} of {size:.1e}"


def test_a_difference_is_seen_beside_what_was_there_before():
    before, here = torch.tensor([1e30, 0.0, 0.0]), torch.tensor([1e30, 1.0, 2.0])
    call = Call("workbench_norm", 0, RECORD, [], [], 1, [])

    def compare(there):
        content, own, other = (one.numpy().tobytes() for one in (before, here, there))
        same(call, Block(0, content, torch.float32), own, other)

    compare(here * torch.tensor([1, 1 + 1e-6, 1 - 1e-6]))
    for factor in ([1, 1 + 1e-5, 1], [1 + 1e-5, 1, 1], [1, 1, torch.nan]):
        with pytest.raises(AssertionError, match="workbench_norm 0"):
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
