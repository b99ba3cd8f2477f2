"""What a distribution must hold although git does not: the built JupyterLab extension, and the compiled C++ kernels."""

import importlib.util
import platform
import re
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "workbench/lab/labextension/build.json"
COMPILING = "kernels/workbench_kernels/cpu/build.py"
# The oldest glibc 2.x beside which a version of the C++ library is found, by the last part of its name.
# Source: the policies of auditwheel, which tell what manylinux promises (PEP 600).
_BESIDE = {
    "GLIBCXX": {19: 17, 22: 24, 24: 27, 28: 31, 29: 34, 30: 35, 33: 39},
    "CXXABI": {7: 17, 10: 24, 11: 27, 12: 31, 13: 34, 15: 39},
}


class BuiltParts(BuildHookInterface[Any]):
    """Refuses a wheel or a source archive without the extension; an editable install goes without.

    A wheel gets the kernels too, for the machines that can load them, where there is a compiler and glibc.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Look for the build before anything is packed.

        Raises:
            FileNotFoundError: the extension is not built.
        """
        if version == "editable":
            return
        if not (Path(self.root) / BUILT).is_file():
            raise FileNotFoundError(
                f"expected the built JupyterLab extension, there is no {BUILT}; "
                "run `make setup` (or `python workbench/lab/build.py`) first, where npm is in reach"
            )
        if self.target_name == "wheel":
            self._ship_kernels(build_data)

    def _ship_kernels(self, build_data: dict[str, Any]) -> None:
        if platform.libc_ver()[0] != "glibc":
            self._warn("their needs can be told for glibc only")
            return
        build = _module(Path(self.root) / COMPILING)
        try:
            library = build.compiled_library()
        except build.BuildError as error:
            self._warn(str(error))
            return
        place = build.SHIPPED.relative_to(build.SOURCE.parent) / build.source_key() / build.NAME
        build_data["force_include"][str(library)] = f"workbench_kernels/cpu/{place.as_posix()}"
        build_data["pure_python"] = False
        # no part of it knows of Python: one wheel serves every version.
        build_data["tag"] = f"py3-none-{platform_tag(library.read_bytes())}"

    def _warn(self, reason: str) -> None:
        self.app.display_warning(
            f"this wheel holds no compiled kernels ({reason}); they are compiled at the first use, which needs a C++ "
            "compiler wherever it is installed"
        )


def platform_tag(library: bytes) -> str:
    """The machines that can load an ELF library of this one's kind, told by the versions of symbols that it asks for.

    `manylinux_2_N_...` (PEP 600), or `linux_...` where it asks for something that no policy knows.
    """
    machine = sysconfig.get_platform().partition("-")[2].replace("-", "_").replace(".", "_")
    needed = [_glibc_for(name.decode(), version.decode()) for name, version in _VERSIONS.findall(library)]
    if not needed or None in needed:
        return f"linux_{machine}"
    return f"manylinux_2_{max(17, *(minor for minor in needed if minor is not None))}_{machine}"


_VERSIONS = re.compile(rb"(?<=\0)(GLIBC|GLIBCXX|CXXABI|GCC)_([0-9.]+)(?=\0)")


def _glibc_for(name: str, version: str) -> int | None:
    """The minor version of the oldest glibc 2.x that comes with it."""
    numbers = [int(part) for part in version.split(".")]
    if name == "GLIBC":
        return numbers[1] if numbers[0] == 2 else None
    if name == "GCC":
        # of the shared part of the compiler, older than every C++ library here.
        return 17 if numbers < [4, 8] else None
    last = numbers[2] if len(numbers) > 2 else 0
    return next((minor for known, minor in sorted(_BESIDE[name].items()) if last <= known), None)


def _module(path: Path) -> ModuleType:
    """A file as a module, without its package, which needs torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
