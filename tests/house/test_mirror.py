"""Every module has a test file of its name, in the folder of its package; every kernel has its bench."""

import re

import workbench_kernels

# A module that another test file covers, and which.
COVERED_ELSEWHERE = {
    "workbench.core.axes": "tests/house/test_axes.py",
}


def test_file(module: str) -> str:
    """Where the tests of a module belong; a leading underscore is dropped."""
    top, _, rest = module.partition(".")
    folders = rest.split(".") if top == "workbench" else ["kernels", *rest.split(".")]
    return "/".join(["tests", *folders[:-1], f"test_{folders[-1].lstrip('_')}.py"])


test_file.__test__ = False


def test_every_module_has_its_test_file(modules, root):
    wanted = {
        module.name: COVERED_ELSEWHERE.get(module.name, test_file(module.name))
        for module in modules
        if not module.is_package and module.path.name != "__main__.py"
    }
    assert {name: path for name, path in wanted.items() if not (root / path).is_file()} == {}


def test_every_exception_is_still_needed(modules, root):
    names = {module.name for module in modules}
    needless = {name for name in COVERED_ELSEWHERE if name not in names or (root / test_file(name)).is_file()}
    assert needless == set()


def test_every_kernel_is_timed_beside_a_peer(root):
    timed = "".join(path.read_text() for path in (root / "kernels").glob("bench/bench_*.py"))
    timed += (root / "kernels/workbench_kernels/bench/peers.py").read_text()
    # makers of a plan from another form, moves that the layer fuses, and what is no arithmetic.
    others = {"RoutingPlan", "backend_of", "permute", "plan_from_groups", "plan_from_mask", "register_transformers"}
    others |= {"unweighted_experts"}
    kernels = set(workbench_kernels.__all__) - others - {"offsets_of", "unpermute"}
    # called, or handed over to be called; a line of its own is an import, and behind a dot it is somebody else's.
    assert {name for name in kernels if not re.search(rf"\S.*(?<![.\w]){name}[(,]", timed)} == set()


def test_the_expected_path_is_that_of_the_mirror():
    assert test_file("workbench.core.routing") == "tests/core/test_routing.py"
    assert test_file("workbench.routers._gate") == "tests/routers/test_gate.py"
    assert test_file("workbench.session") == "tests/test_session.py"
    assert test_file("workbench_kernels.triton.moe_mlp") == "tests/kernels/triton/test_moe_mlp.py"
