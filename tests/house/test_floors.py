"""A floor imports lower floors only, neighbours never import each other, no import hides inside a function."""

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

FLOOR = {
    "workbench_kernels": 1,
    "workbench.core": 2,
    "workbench.hub": 2,
    "workbench.terminal": 2,
    "workbench.routers": 3,
    "workbench.experts": 3,
    "workbench.trace": 3,
    "workbench.data": 3,
    "workbench.model": 4,
    "workbench.analysis": 4,
    "workbench.train": 5,
    "workbench.offload": 5,
    "workbench.parallel": 5,
    "workbench.placement": 5,
    "workbench.payloads": 5,
    "workbench.live": 6,
    "workbench.opening": 6,
    "workbench.view": 7,
    "workbench.session": 8,
    "workbench.lab": 8,
    "workbench.doctor": 8,
    "workbench.host_command": 8,
    "workbench.commands": 9,
    "workbench.offload_command": 9,
    "workbench.compare_command": 9,
    "workbench.app_command": 9,
    "workbench.offload_parsers": 10,
    "workbench.cli": 11,
    "workbench.__main__": 12,
    "workbench": 12,
    "workbench.__version__": 0,  # a fact, not a part
    "workbench.bootstrap": 0,  # standard library only: it runs before anything is installed
}
ONLY = {"workbench.lab": {"workbench.hub"}, "workbench.hub": set(), "workbench.bootstrap": set()}
OPTIONAL = {"IPython", "datasets", "psutil", "pyarrow", "transformers", "triton"}
DOTTED = re.compile(r"(workbench|workbench_kernels)(\.\w+)+(:\w+)?")


def part_of(name: str) -> str:
    """The part of the house that a dotted name belongs to."""
    first, _, rest = name.partition(".")
    part = f"{first}.{rest.split('.')[0]}" if rest else first
    return part if part in FLOOR else first


def imported(node: ast.AST, module: str) -> Iterator[str]:
    """Dotted names that a node imports, a name in a string (a lazy table, a registry) included."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join(module.split(".")[: -node.level]) if node.level else ""
        source = ".".join(part for part in (base, node.module) if part)
        yield from (f"{source}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
        yield node.value.replace(":", ".")


def upward_imports(module: str, tree: ast.AST) -> list[str]:
    """Imports of a module that break the floors."""
    here, found = part_of(module), []
    for node in ast.walk(tree):
        for name in imported(node, module):
            there = part_of(name)
            if there not in FLOOR or there == here:
                continue
            if FLOOR[there] >= FLOOR[here] or (here in ONLY and there not in ONLY[here]):
                found.append(f"{module}:{node.lineno} {here} must not import {there}")
    return found


def hidden_imports(module: str, tree: ast.AST) -> list[str]:
    """Imports inside a function, of anything but an optional dependency."""
    found = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [name for name in imported(node, module) if name.split(".")[0] not in OPTIONAL]
                    found.update(f"{module}:{node.lineno} imports {name} inside a function" for name in names)
    return sorted(found)


def circle(trees: Mapping[str, ast.AST]) -> list[str]:
    """Modules that import each other in a ring, if only for their types; empty where there is none."""
    needs = {}
    for module, tree in trees.items():
        # not the names in strings: what is looked up while running, as an engine is, is no knowledge of it.
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name for node in imports for name in imported(node, module)}
        needs[module] = {at for name in names for at in (name, name.rpartition(".")[0]) if at in trees} - {module}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_part_of_the_house_has_a_floor(modules):
    parts = {".".join(module.name.split(".")[:2]) for module in modules}
    assert {part for part in parts if part.startswith("workbench.")} <= set(FLOOR)


def test_no_import_goes_up_or_sideways(modules):
    assert [fault for module in modules for fault in upward_imports(module.name, module.tree)] == []


def test_no_modules_import_each_other(modules):
    assert circle({module.name: module.tree for module in modules if not module.is_package}) == []


def test_a_planted_circle_is_caught():
    code = {
        "workbench.live.run": "from workbench.live.actions import ACTIONS",
        "workbench.live.actions": "if TYPE_CHECKING:\n    from workbench.live.run import LiveRun",
        "workbench.live.pace": "import threading",
    }
    assert set(circle({name: ast.parse(text) for name, text in code.items()})) == {
        "workbench.live.run",
        "workbench.live.actions",
    }


def test_no_import_hides_inside_a_function(modules):
    assert [fault for module in modules for fault in hidden_imports(module.name, module.tree)] == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("workbench.core.routing", "from workbench.model.config import ModelConfig"),
        ("workbench.core.routing", "import workbench.routers.top_k"),
        ("workbench.core.routing", "from workbench import model"),
        ("workbench.core.routing", "import workbench"),
        ("workbench.routers.top_k", "from workbench.experts import mlp"),
        ("workbench.routers.top_k", "from ..experts import mlp"),
        ("workbench.trace.record", "import_module('workbench.view.report')"),
        ("workbench.train", "lazy_exports(__name__, {'Cache': 'workbench.offload.cache'})"),
        ("workbench.train.trainer", "if TYPE_CHECKING:\n    from workbench.session import Session"),
        ("workbench_kernels.routing", "from workbench.core import axes"),
        ("workbench.hub.stream", "from workbench_kernels import reference"),
        ("workbench.lab.handlers", "from workbench.core import units"),
        ("workbench.bootstrap", "from workbench.core import units"),
    ],
)
def test_a_planted_import_is_caught(module, code):
    assert len(upward_imports(module, ast.parse(code))) == 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (
            "workbench.routers.top_k",
            "from workbench.core import Router\nfrom workbench.routers._gate import gate",
        ),
        ("workbench.lab.handlers", "from workbench.hub import commands\nimport tornado"),
        ("workbench.cli", "from workbench.session import Session\nimport workbench.view.report"),
        ("workbench.model.layer", "raise ValueError('see workbench.session for the way')"),
    ],
)
def test_an_import_downwards_is_allowed(module, code):
    assert upward_imports(module, ast.parse(code)) == []


def test_a_planted_hidden_import_is_caught():
    code = (
        "def f():\n    import json\n    import pyarrow.parquet\n    def g():\n        from workbench.core import axes\n"
    )
    assert hidden_imports("workbench.data.corpus", ast.parse(code)) == [
        "workbench.data.corpus:2 imports json inside a function",
        "workbench.data.corpus:5 imports workbench.core.axes inside a function",
    ]
