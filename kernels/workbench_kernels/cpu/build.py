"""Compiles the C++ kernels once where they did not come compiled, and keeps the result; no build system is needed."""

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs

__all__ = [
    "BuildError",
    "build_library",
    "cache_folder",
    "cached_library",
    "compiled_library",
    "find_compiler",
    "shipped_library",
    "source_key",
]

SOURCE, SHIPPED = Path(__file__).parent / "source", Path(__file__).parent / "shipped"
_LOG = logging.getLogger(__name__)
NAME = "libworkbench_kernels.so"
_COMMON = ("-O3", "-std=c++17", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", "-mprefer-vector-width=512")
_BF16 = (*_AVX512, "-mavx512bf16")
_AMX = (*_BF16, "-mamx-tile", "-mamx-bf16")


class BuildError(RuntimeError):
    """The compiler is missing or failed; the text says which and how."""


def find_compiler() -> str | None:
    """The C++ compiler that Python was configured with, else the first of the usual names; None without one."""
    configured = (sysconfig.get_config_var("CXX") or "").split()
    names = (*configured[:1], "c++", "g++", "clang++")
    return next((found for name in names if (found := shutil.which(name))), None)


def source_key() -> str:
    """A name for this version of the sources on this kind of machine."""
    digest = hashlib.sha256()
    for path in (*sorted(SOURCE.iterdir()), Path(__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{sys.platform}-{platform.machine().lower()}-{digest.hexdigest()[:16]}"


def cache_folder() -> Path:
    """Where compiled libraries are kept: in the virtual environment, or in the user's cache where there is none."""
    is_own = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    kept = Path(sys.prefix) / "share" / "moe-workbench" if is_own else platformdirs.user_cache_path("moe-workbench")
    return kept / "kernels"


def shipped_library() -> Path | None:
    """The library that came with the package; None where none did, or one of other sources or another machine."""
    path = SHIPPED / source_key() / NAME
    return path if path.is_file() else None


def cached_library() -> Path:
    """The library that came with the package, else the compiled one.

    Raises:
        BuildError: there is none, and no compiler, or it failed.
    """
    return shipped_library() or compiled_library()


def compiled_library() -> Path:
    """The compiled library, from `cache_folder`; compiled there first where it is missing.

    Raises:
        BuildError: no compiler, or it failed.
    """
    folder = cache_folder() / source_key()
    path = folder / NAME
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            # two processes at once would compile the same twice: the second waits and finds it done.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                _LOG.warning("compiling the C++ kernels, once for this version: half a minute on two cores")
                build_library(folder)
            return path
    except OSError as error:
        raise BuildError(f"the kernels cannot be kept in {folder}: {error}") from error


def build_library(folder: Path) -> Path:
    """The library, newly compiled into a folder; another process that does the same at once does no harm.

    Raises:
        BuildError: no compiler, or it failed.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler was found (looked for c++, g++ and clang++); install g++ 11 or newer")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            objects = _compile(compiler, Path(work))
            linked = Path(work) / NAME
            _run([(compiler, "-shared", "-o", str(linked), *objects, "-lpthread", "-static-libgcc")])
            # one rename: who looks meanwhile finds the whole file or none.
            linked.replace(folder / NAME)
    except OSError as error:
        raise BuildError(f"the kernels could not be compiled in {folder}: {error}") from error
    return folder / NAME


def _compile(compiler: str, work: Path) -> list[str]:
    is_x86 = platform.machine().lower() in {"x86_64", "amd64"}
    tiers = {"avx512": _AVX512, "avx2": _AVX2, "portable": ()} if is_x86 else {"portable": ()}
    units = [("amx.cpp", "amx", _AMX), ("bf16.cpp", "bf16", _BF16)] if is_x86 else []
    # the longest first: they are compiled side by side.
    units += [(name, tier, flags) for name in ("tier.cpp", "rows.cpp") for tier, flags in tiers.items()]
    units += [(name, "", ()) for name in ("paging.cpp", "plan.cpp", "step.cpp", "main.cpp")]
    commands, objects = [], []
    for name, tier, flags in units:
        objects.append(str(work / f"{name}.{tier}.o"))
        named = (f"-DTIER={tier}",) if tier else ()
        source = str(SOURCE / name)
        commands.append((compiler, *_COMMON, *named, *flags, "-w", "-c", source, "-o", objects[-1]))
    _run(commands)
    # the linker keeps the first copy of what all units share, and that must run on every processor.
    return objects[::-1]


def _run(commands: Sequence[tuple[str, ...]]) -> None:
    waiting, running = list(commands), []
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            command = waiting.pop(0)
            running.append((command, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
        command, process = running.pop(0)
        said = process.communicate()[0].decode(errors="replace")
        if process.returncode != 0:
            for _, other in running:
                other.kill()
                other.communicate()
            last = "\n".join(said.strip().splitlines()[-8:]) or "it said nothing"
            raise BuildError(f"{command[0]} failed with exit status {process.returncode}:\n{last}")
