"""Calls say in which dtype and with which instructions, and what came of them."""

import ctypes
import re

import pytest
from workbench_kernels.cpu import build, calls, library
from workbench_kernels.cpu.calls import DTYPES, run


def test_dtypes_have_the_numbers_of_the_library():
    (line,) = re.findall(r"int32_t dtype; +// (0 \w+, 1 \w+, 2 \w+)", (build.SOURCE / "call.h").read_text())
    found = {name: int(number) for number, name in re.findall(r"(\d) (\w+)", line)}
    assert found == {str(dtype)[6:]: number for dtype, number in DTYPES.items()}


@pytest.mark.parametrize("is_backward", [0, 1])
def test_a_call_gets_its_record_its_direction_and_the_tier(is_backward, monkeypatch):
    seen = []
    found = library.Kernels(None, {"workbench_norm": lambda *given: seen.append(given) or 1}, 2, "a test")
    monkeypatch.setattr(calls, "kernels", lambda: found)
    record = library.NormCall(3, 4)
    run("workbench_norm", record, is_backward)
    ((given, direction, tier),) = seen
    assert ctypes.addressof(given._obj) == ctypes.addressof(record)
    assert (direction, tier) == (is_backward, 2)


def test_a_call_that_found_no_memory_says_what_to_do(monkeypatch):
    found = library.Kernels(None, {"workbench_norm": lambda *_: 0}, 0, "a test")
    monkeypatch.setattr(calls, "kernels", lambda: found)
    with pytest.raises(MemoryError, match="no scratch memory; use fewer tokens at once"):
        run("workbench_norm", library.NormCall(), 0)
