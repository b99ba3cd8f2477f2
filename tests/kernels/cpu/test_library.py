"""The library says what it runs on, or why it does not."""

import ctypes

import pytest
from workbench_kernels.cpu import build, library
from workbench_kernels.cpu.build import BuildError


@pytest.fixture
def anew():
    library._load.cache_clear()
    yield
    library._load.cache_clear()


def test_it_is_available_and_says_on_what():
    is_there, reason = library.availability()
    assert is_there, reason
    assert reason.startswith("C++ kernels with ")


def test_without_a_compiler_it_is_not_there_and_says_why(anew, monkeypatch):
    def fails():
        raise BuildError("no C++ compiler was found")

    monkeypatch.setattr(library, "cached_library", fails)
    assert library.availability() == (False, "no C++ compiler was found")
    with pytest.raises(RuntimeError, match=r"cannot run: no C\+\+ compiler was found"):
        library.kernels()


@pytest.mark.parametrize("loads", [True, False])
def test_a_shipped_library_is_named_and_one_that_does_not_load_is_compiled_instead(
    loads, anew, monkeypatch, tmp_path, caplog
):
    content = build.compiled_library().read_bytes() if loads else b"for another machine"
    monkeypatch.setattr(build, "SHIPPED", tmp_path)
    shipped = tmp_path / build.source_key() / build.NAME
    shipped.parent.mkdir()
    shipped.write_bytes(content)
    wanted = ", shipped with the package" if loads else ", compiled on this machine"
    assert library.kernels().reason.endswith(wanted)
    assert (f"do not load here, so they are compiled: {shipped}" in caplog.text) is not loads


def test_a_file_that_is_no_library_is_a_reason_not_a_crash(anew, monkeypatch, tmp_path):
    broken = tmp_path / "libworkbench_kernels.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(library, "cached_library", lambda: broken)
    is_there, reason = library.availability()
    assert not is_there
    assert str(broken) in reason


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (library.MoECall, 208),
        (library.GroupedCall, 112),
        (library.CausalCall, 144),
        (library.NormCall, 96),
        (library.EntropyCall, 72),
        (library.TopKCall, 104),
        (library.AttentionCall, 232),
        (library.ChoiceCall, 96),
        (library.ExpertsCall, 112),
        (library.LinearCall, 56),
        (library.StepCall, 32),
    ],
)
def test_records_have_the_size_of_their_c_counterparts(record, size):
    assert ctypes.sizeof(record) == size
