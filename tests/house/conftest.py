"""The repository as the house tests read it: files of git, and the syntax tree of every module."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Module:
    """One Python file of a package."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


def package_modules(folder: Path) -> list[Module]:
    """Every module below a package folder, by dotted name; what cannot be imported is no module but a file."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        if "node_modules" not in parts and all(part.isidentifier() for part in parts):
            found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@pytest.fixture(scope="session")
def modules(root: Path) -> list[Module]:
    """Every module of `workbench` and `workbench_kernels`."""
    return [*package_modules(root / "workbench"), *package_modules(root / "kernels" / "workbench_kernels")]


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Every file that is or would be in git: tracked, or new and not ignored."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(root / name for name in set(names) if name and (root / name).is_file())
