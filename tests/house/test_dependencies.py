"""What the packages import is what pyproject.toml asks for, no more and no less."""

import ast
import re
import sys
import tomllib

# Needed without an import of ours, and why.
NEEDED_ANYWAY = {
    "h5netcdf": "the engine by which xarray writes netCDF",
    "h5py": "what h5netcdf works with, and no longer asks for",
    "ipywidgets": "what anywidget and tqdm show themselves with",
    "jupyterlab": "the place of work",
    "triton": "compiles and interprets the kernels",
}


def third_party(tree: ast.AST) -> set[str]:
    """Top-level names that a module imports from outside the house and the standard library."""
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    return names - sys.stdlib_module_names - {"workbench", "workbench_kernels", ""}


def declared(lines: list[str]) -> set[str]:
    """Names of requirements, as they are imported."""
    return {re.match(r"[\w.-]+", line).group().replace("-", "_") for line in lines}


def test_every_import_is_declared_and_every_declaration_is_needed(modules, root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    imported = {name for module in modules for name in third_party(module.tree)}
    extras = project["optional-dependencies"]
    required, optional = declared(project["dependencies"]), declared(extras["data"] + extras["app"] + extras["class"])
    assert imported - required - optional == set()
    assert required - imported - set(NEEDED_ANYWAY) == set()
    assert set(NEEDED_ANYWAY) <= required


def test_imports_are_told_from_the_standard_library_and_the_house():
    tree = ast.parse("import os, torch.nn\nfrom numpy import array\nfrom workbench.core import axes\nfrom . import x")
    assert third_party(tree) == {"torch", "numpy"}
