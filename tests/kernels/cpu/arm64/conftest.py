"""Calls of the kernels with the memory that they see: recorded here, made again on an emulated arm64 processor."""

import ctypes
import gc
import inspect
import platform
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from workbench_kernels import paging
from workbench_kernels.cpu import build, calls, engine, library, tokens

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
RECORD, STEP, PLAIN = range(3)
# by kind, as call.h numbers those of a step.
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
    """Takes the place of the library in this test."""
    own = Recorder()
    for module in (calls, engine, tokens, paging):
        monkeypatch.setattr(module, "kernels", lambda: own.kernels)
    torch.set_num_threads(2)
    return own
