"""The wheel holds both packages, the views and the data, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SHIPPED = {"workbench": "workbench", "kernels/workbench_kernels": "workbench_kernels"}
DATA = {
    "datasets/corpora": "workbench/_datasets/corpora",
    "datasets/tokenizers": "workbench/_datasets/tokenizers",
}


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def shipped_name(path: Path) -> str | None:
    """Where a file of the repository lies in the wheel, None if it stays out."""
    name = path.as_posix()
    for source, target in (SHIPPED | DATA).items():
        if name.startswith(f"{source}/"):
            is_script = source in DATA and path.suffix == ".py"
            return None if is_script or name == "workbench/bootstrap.py" else target + name.removeprefix(source)
    return None


def test_the_wheel_holds_what_git_holds(wheel, tracked, root):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {shipped_name(path.relative_to(root)) for path in tracked} - {None}
    assert held == expected
    assert {"workbench/__init__.py", "workbench_kernels/__init__.py"} <= held
    assert any(name.startswith("workbench/view/views/") and name.endswith(".js") for name in held)
    assert any(name.startswith("workbench/_datasets/corpora/") for name in held)


def test_the_wheel_has_the_licence_and_the_command(wheel):
    files = zipfile.ZipFile(wheel)
    [licence] = [name for name in files.namelist() if name.endswith("licenses/LICENSE")]
    assert b"Apache License" in files.read(licence)
    [commands] = [name for name in files.namelist() if name.endswith("entry_points.txt")]
    assert "workbench = workbench.cli:main" in files.read(commands).decode()


def test_an_installed_wheel_finds_its_data(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from workbench.data.bundle import bundled;"
        "print(bundled('corpora/mixed'), bundled('tokenizers'), sep='\\n')"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, check=True)
    data = tmp_path / "workbench" / "_datasets"
    assert found.stdout.decode().splitlines() == [str(data / "corpora" / "mixed"), str(data / "tokenizers")]
