"""The wheel holds both packages, the views, the data, the JupyterLab extension and the kernels, and nothing else."""

import importlib.util
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.bridge.app import Application
from workbench_kernels.cpu.build import BuildError, find_compiler, source_key

SHIPPED = {"workbench": "workbench", "kernels/workbench_kernels": "workbench_kernels"}
DATA = {
    "datasets/corpora": "workbench/_datasets/corpora",
    "datasets/tokenizers": "workbench/_datasets/tokenizers",
}
EXTENSION = "workbench/lab/labextension"
# Where JupyterLab and the Jupyter server look, below the prefix of the environment.
LABEXTENSION = "share/jupyter/labextensions/@moe-workbench/lab"
KERNELS = f"workbench_kernels/cpu/shipped/{source_key()}/libworkbench_kernels.so"
IS_COMPILED = find_compiler() is not None and platform.libc_ver()[0] == "glibc"
SERVER_CONFIG = "etc/jupyter/jupyter_server_config.d/moe-workbench.json"


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    if not (root / EXTENSION / "build.json").is_file():
        pytest.skip("the JupyterLab extension is not built: run `make setup` where npm is in reach")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def hook(root):
    """The module of the build hook, which lies beside pyproject.toml and in no package."""
    spec = importlib.util.spec_from_file_location("hatch_build", root / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped_name(path: Path) -> str | None:
    """Where a file of the repository lies in the wheel, None if it stays out."""
    name = path.as_posix()
    for source, target in (SHIPPED | DATA).items():
        if name.startswith(f"{source}/"):
            is_script = source in DATA and path.suffix == ".py"
            is_tool = name == "workbench/bootstrap.py" or is_of_the_build(path)
            return None if is_script or is_tool else target + name.removeprefix(source)
    return None


def is_of_the_build(path: Path) -> bool:
    """True for what the JupyterLab extension is made from, as opposed to the server's half."""
    inside = path.parts[2:] if path.parts[:2] == ("workbench", "lab") else ()
    is_tool = inside in {("build.py",), (".npmrc",)} or path.suffix in {".json", ".js"}
    return len(inside) > 1 or (len(inside) == 1 and is_tool)


def shared_files(root: Path) -> set[str]:
    """What the environment gets outside of the packages."""
    built = (path.relative_to(root / EXTENSION) for path in (root / EXTENSION).rglob("*") if path.is_file())
    return {SERVER_CONFIG, *(f"{LABEXTENSION}/{path.as_posix()}" for path in built)}


def test_the_wheel_holds_what_git_holds(wheel, tracked, root):
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    expected = {shipped_name(path.relative_to(root)) for path in tracked} - {None}
    expected |= {KERNELS} if IS_COMPILED else set()
    assert held == expected
    assert {"workbench/__init__.py", "workbench_kernels/__init__.py"} <= held
    assert any(name.startswith("workbench/view/views/") and name.endswith(".js") for name in held)
    assert any(name.startswith("workbench/_datasets/corpora/") for name in held)


def test_the_wheel_brings_the_built_extension_and_switches_it_on(wheel, root):
    names = {name.partition(".data/data/")[2] for name in zipfile.ZipFile(wheel).namelist() if ".data/" in name}
    assert names == shared_files(root)
    assert {name.rpartition("/")[2] for name in names} >= {"package.json", "install.json", "plugin.json"}
    assert any("/static/remoteEntry." in name for name in names)


@pytest.mark.parametrize(("target", "status"), [("wheel", 1), ("sdist", 1), ("wheel:editable", 0)])
def test_only_an_editable_install_goes_without_the_extension(target, status, root, tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", "workbench/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    if status:
        assert "expected the built JupyterLab extension, there is no workbench/lab/labextension" in done.stderr
        assert "run `make setup`" in done.stderr


def test_the_source_archive_holds_what_was_built_and_nothing_of_its_tools(wheel, root, tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        held = {name.partition("/")[2] for name in files.getnames()}
    built = {path.relative_to(root).as_posix() for path in (root / EXTENSION).rglob("*") if path.is_file()}
    assert built <= held
    assert [name for name in held if "node_modules" in name] == []


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


@pytest.mark.skipif(not IS_COMPILED, reason="no compiler or no glibc here: a wheel without kernels")
def test_an_installed_wheel_needs_no_compiler(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import torch, workbench_kernels as kernels;"
        "out = kernels.topk_gate(torch.tensor([[0.0, 2.0, 1.0]]), 2)[1];"
        "print(kernels.__file__, *kernels.backend_of('cpu'), out.tolist(), sep='\\n')"
    )
    # no path, and no cache of libraries compiled before.
    alone = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=alone, check=True, text=True)
    place, name, reason, chosen = done.stdout.splitlines()
    assert Path(place) == tmp_path / "site" / "workbench_kernels" / "__init__.py"
    assert (name, chosen) == ("cpp", "[[1, 2]]")
    assert reason.endswith(", shipped with the package")
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(not IS_COMPILED, reason="no compiler or no glibc here: a wheel without kernels")
def test_the_tag_says_what_the_kernels_need_and_not_less_than_this_machine_has(wheel):
    python, abi, tag = wheel.stem.split("-")[-3:]
    assert (python, abi) == ("py3", "none")
    _, two, minor, machine = tag.split("_", 3)
    assert (two, machine) == ("2", platform.machine())
    assert 17 <= int(minor) <= int(platform.libc_ver()[1].split(".")[1])
    [written] = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/WHEEL")]
    assert f"Root-Is-Purelib: false\nTag: py3-none-{tag}\n" in zipfile.ZipFile(wheel).read(written).decode()


@pytest.mark.parametrize(
    ("versions", "tag"),
    [
        ("GLIBC_2.2.5 GLIBC_2.14 GLIBCXX_3.4.19 CXXABI_1.3", "manylinux_2_17_"),
        ("GLIBC_2.34 GLIBC_2.9", "manylinux_2_34_"),
        ("GLIBC_2.17 GLIBCXX_3.4.29", "manylinux_2_34_"),
        ("GLIBC_2.17 CXXABI_1.3.15 GCC_3.0", "manylinux_2_39_"),
        ("GLIBC_2.17 GLIBCXX_3.4.99", "linux_"),
        ("GLIBC_2.17 GCC_14.0.0", "linux_"),
        ("NOBODY_1.0", "linux_"),
    ],
)
def test_a_tag_is_the_newest_of_what_is_asked_for(hook, versions, tag):
    library = b"\0".join([b"\x7fELF", *versions.encode().split(), b"rest"])
    assert hook.platform_tag(library).startswith(tag)
    assert hook.platform_tag(library).endswith(platform.machine())


def test_without_a_compiler_the_wheel_is_for_every_machine_and_that_is_said(hook, root, monkeypatch, capsys):
    def fails():
        raise BuildError("no C++ compiler was found")

    monkeypatch.setattr(hook.platform, "libc_ver", lambda: ("glibc", "2.36"))
    real = hook._module(root / hook.COMPILING)
    real.compiled_library = fails
    real.BuildError = BuildError
    monkeypatch.setattr(hook, "_module", lambda path: real)
    data = {"force_include": {}}
    parts = hook.BuiltParts(str(root), {}, None, None, "", "wheel", Application())
    parts._ship_kernels(data)
    assert data == {"force_include": {}}
    said = " ".join(capsys.readouterr())
    assert "no compiled kernels (no C++ compiler was found); they are compiled at the first use" in said
