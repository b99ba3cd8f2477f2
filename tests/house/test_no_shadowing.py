"""Our folders hide no installed package, and the workbench that runs is the one in this repository."""

import json
import subprocess
import sys

import workbench

PLAIN = ("kernels", "datasets", "notebooks", "tests")


def test_plain_folders_hold_no_package(root):
    inits = {path for name in PLAIN for path in (root / name).rglob("__init__.py")}
    assert {path for path in inits if (root / "kernels" / "workbench_kernels") not in path.parents} == set()


def test_the_workbench_under_test_is_ours(root):
    assert workbench.__file__ == str(root / "workbench" / "__init__.py")


def locate(names: tuple[str, ...], folder) -> dict[str, str | None]:
    """Files of packages as a fresh interpreter in a folder finds them; None without a file."""
    code = (
        "import importlib.util as u, json, sys; specs = {n: u.find_spec(n) for n in sys.argv[1:]};"
        "print(json.dumps({n: s.origin if s else None for n, s in specs.items()}))"
    )
    command = [sys.executable, "-c", code, *names]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout)


def test_from_elsewhere_only_the_two_packages_can_be_imported(root, tmp_path):
    found = locate((*PLAIN, "workbench", "workbench_kernels"), tmp_path)
    ours = {name for name, origin in found.items() if origin is not None and origin.startswith(f"{root}/")}
    ours = {name for name in ours if "site-packages" not in found[name]}
    assert ours == {"workbench", "workbench_kernels"}


def test_from_the_repository_root_the_installed_datasets_package_wins(root):
    assert "site-packages" in locate(("datasets",), root)["datasets"]
