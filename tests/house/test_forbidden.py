"""What STYLE forbids and a syntax tree can tell exactly, beyond the rules of ruff."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

# Modules that read the environment, and why they may.
ENVIRONMENT = {
    "workbench.hub.places": "JUPYTER_RUNTIME_DIR and its kin say where servers and kernels meet",
    "workbench.lab.class_roster": "JupyterHub tells its services in JUPYTERHUB_* where they are and who they are",
    "workbench_kernels.backend": "WORKBENCH_KERNELS chooses the kernels",
}
# What one thread catches another one raises.
HANDED_ON = {"workbench.live.desk": "to who asked for the job", "workbench.live.run": "to who waits for the run"}
# Signatures with `**`, each naming the arguments of another signature that refuses a wrong name.
PASSED_ON = {
    "workbench.core.context.at": "fields of RouteContext",
    "workbench.core.sparse.from_topk": "fields of Routing",
    "workbench.core.sparse.from_mask": "fields of Routing",
    "workbench.core.sparse.from_expert_choice": "fields of Routing",
    "workbench.core.spec.build": "arguments of the entry's constructor",
    "workbench.hub.access.write_error": "what tornado calls the hook with",
    "workbench.live.run.command": "arguments of the command",
    "workbench.session.swap_router": "arguments of the router's constructor",
}
UNSAFE = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or an attribute chain, empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults_of_call(node: ast.Call) -> Iterator[str]:
    """Calls that ask an object what it is, print, or run what a file says."""
    name, words = dotted(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
    if name in {"print", "eval", "exec", "breakpoint"}:
        yield f"{name}()"
    if name == "hasattr" or (name == "getattr" and len(node.args) == 3):
        yield f"{name}() asks what something is"
    if name == "torch.load" and not (
        isinstance(words.get("weights_only"), ast.Constant) and words["weights_only"].value
    ):
        yield "torch.load without weights_only=True"
    if name in {"os.getenv", "os.environ.get"}:
        yield "reads the environment"


def faults_of_node(node: ast.AST) -> Iterator[str]:
    """The faults of one node of the tree."""
    if isinstance(node, ast.Call):
        yield from faults_of_call(node)
    elif isinstance(node, ast.ExceptHandler):
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        is_passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if any(kind is None or dotted(kind) in {"Exception", "BaseException"} for kind in caught) and not is_passed_on:
            yield "catches everything"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.args.kwarg is not None and not node.name.startswith("_"):
            yield f"{node.name}(**)"
        if re.search(r"(_v\d+|_new|_old)$", node.name):
            yield f"{node.name}: a suffix instead of a name"
    elif isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (f"imports {name}" for name in names if name.split(".")[0] in UNSAFE)
    elif isinstance(node, ast.Subscript) and dotted(node.value) == "os.environ":
        yield "reads the environment"


def is_allowed(module: str, fault: str) -> bool:
    """True for the exceptions, each of which has its reason in a table above."""
    if fault.endswith("(**)"):
        return f"{module}.{fault.removesuffix('(**)')}" in PASSED_ON
    if fault == "reads the environment":
        return module in ENVIRONMENT
    if fault == "catches everything":
        return module in HANDED_ON
    return fault == "print()" and module == "workbench.cli"


def faults(module: str, text: str) -> list[str]:
    """Everything forbidden in a module, with its line."""
    found = []
    for node in ast.walk(ast.parse(text)):
        for fault in faults_of_node(node):
            if not is_allowed(module, fault):
                found.append(f"{module}:{node.lineno} {fault}")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string):
            found.append(f"{module}:{token.start[0]} {token.string}")
    return found


def test_nothing_forbidden_is_in_the_packages(modules):
    assert [fault for module in modules for fault in faults(module.name, module.text)] == []


def test_every_exception_is_still_needed(modules):
    texts = {module.name: module.text for module in modules}
    signatures = [name.rpartition(".") for name in PASSED_ON]
    assert [name for module, _, name in signatures if f"def {name}(" not in texts.get(module, "")] == []
    assert [name for name in ENVIRONMENT if "os.environ" not in texts.get(name, "")] == []


def test_shared_code_does_not_name_a_router(modules):
    routers = {m.path.stem for m in modules if m.name.startswith("workbench.routers.")} - {
        "dense",
        "hash",
        "random",
    }
    compared = [
        f"{module.name}:{node.lineno}"
        for module in modules
        if not module.name.startswith("workbench.routers")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in routers
    ]
    assert compared == []


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "hasattr(x, 'bias')",
        "getattr(x, 'bias', None)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "os.environ['HOME']",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (OSError, Exception):\n    pass",
        "try:\n    f()\nexcept:\n    pass",
        "def make(**options): ...",
        "def gate_v2(): ...",
        "from pickle import loads",
        "x = 1  # TODO later",
    ],
)
def test_a_planted_fault_is_found(code):
    assert len(faults("workbench.core.spec", code)) == 1


def test_what_is_allowed_is_not_found():
    cleaning = "try:\n    f()\nexcept BaseException:\n    undo()\n    raise\n"
    code = cleaning + "getattr(module, name)\ntorch.load(p, weights_only=True)\ndef _f(**k): ...\ns = 'TODO'"
    assert faults("workbench.core.spec", code) == []
