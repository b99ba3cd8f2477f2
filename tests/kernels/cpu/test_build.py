"""Compiling: once, whole or not at all, and with an error that says what to do."""

import platform
import re
import stat
import subprocess
import sys

import pytest
from workbench_kernels.cpu import build


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path


def test_without_a_compiler_the_error_says_what_to_install(no_cache, monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler was found .* install g\+\+ 11"):
        build.cached_library()


def test_a_compiler_that_fails_is_quoted_and_leaves_no_library(no_cache, monkeypatch):
    failing = script(no_cache / "c++", "echo unknown option: -mfuture; exit 3")
    monkeypatch.setattr(build, "find_compiler", lambda: failing)
    with pytest.raises(build.BuildError, match=r"exit status 3:\nunknown option: -mfuture"):
        build.cached_library()
    assert list(no_cache.rglob(build.NAME)) == []


def test_a_compiler_that_makes_nothing_is_an_error_too(no_cache, monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: script(no_cache / "c++", "exit 0"))
    with pytest.raises(build.BuildError, match="could not be compiled in"):
        build.cached_library()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder belongs")
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(build.BuildError, match=r"cannot be kept in .*cache"):
        build.cached_library()


def test_a_library_that_is_there_is_not_compiled_again(no_cache, monkeypatch):
    folder = no_cache / "cache" / build.source_key()
    folder.mkdir(parents=True)
    (folder / build.NAME).write_bytes(b"")
    monkeypatch.setattr(build, "find_compiler", lambda: pytest.fail("asked for a compiler"))
    assert build.cached_library() == folder / build.NAME


def test_what_came_with_the_package_is_taken_when_it_is_of_these_sources(no_cache, monkeypatch):
    monkeypatch.setattr(build, "SHIPPED", no_cache / "shipped")
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    other = no_cache / "shipped" / "linux-x86_64-0123456789abcdef" / build.NAME
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    assert build.shipped_library() is None
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler was found"):
        build.cached_library()
    own = no_cache / "shipped" / build.source_key() / build.NAME
    own.parent.mkdir()
    own.write_bytes(b"")
    assert build.cached_library() == build.shipped_library() == own


def test_another_source_has_another_key(tmp_path, monkeypatch):
    before = build.source_key()
    (tmp_path / "call.h").write_text("struct Other;")
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    assert build.source_key() != before


def test_a_virtual_environment_keeps_its_own_and_others_use_the_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert build.cache_folder() == tmp_path / "share" / "moe-workbench" / "kernels"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert build.cache_folder() == tmp_path / "cache" / "moe-workbench" / "kernels"


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "product"), [("bf16", "vdpbf16ps"), ("amx", "tdpbf16ps")])
def test_weights_are_fetched_while_others_are_multiplied(unit, product, tmp_path):
    compiler = build.find_compiler()
    if compiler is None or platform.machine().lower() not in {"x86_64", "amd64"}:
        pytest.skip("these instructions are compiled by a C++ compiler on x86-64")
    out, flags = tmp_path / "unit.s", {"bf16": build._BF16, "amx": build._AMX}[unit]
    command = [compiler, *build._COMMON, *flags, "-w", f"-DTIER={unit}", "-S", build.SOURCE / f"{unit}.cpp", "-o", out]
    subprocess.run(command, check=True)
    # a function that only fetches has no effect that a compiler knows of, and is left out where it is not inlined.
    functions = re.split(r"^(?=_Z\w+:$)", out.read_text(), flags=re.MULTILINE)
    products = [text for text in functions if product in text and not re.match(r"_Z\w*Causal", text)]
    assert len(products) >= 10
    assert [text.split(":", 1)[0] for text in products if "prefetch" not in text] == []
