"""The set-up decides rightly, ends quickly when nothing changed, and says what is missing."""

import ast
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import bootstrap

LAPTOP = bootstrap.Machine(system="Linux", python=(3, 11), has_venv=True, has_make=True, has_nvidia_driver=False)
CONSTRAINTS = "# why\nnumpy==2.4.6\ntorch==2.13.0\ntriton==3.6.0\nzarr==3.1.6\n"


def test_a_sound_machine_misses_nothing():
    assert bootstrap.missing_pieces(LAPTOP) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"has_venv": False}, "apt install python3-venv` (or python3.11-venv)"),
        ({"has_make": False}, "make is missing: `apt install make`"),
        ({"python": (3, 10)}, "Python 3.11, 3.12 or 3.13 is needed, this is 3.10: run `make setup PYTHON=python3.12`"),
        ({"python": (3, 14)}, "this is 3.14"),
        ({"system": "Windows"}, "open a WSL shell"),
    ],
)
def test_each_missing_piece_is_named_with_the_way_to_get_it(change, message):
    [sentence] = bootstrap.missing_pieces(replace(LAPTOP, **change), ["python3.12"])
    assert message in sentence


def test_without_another_interpreter_one_is_to_be_installed():
    [sentence] = bootstrap.missing_pieces(replace(LAPTOP, python=(3, 9)))
    assert "install one, such as python3.12" in sentence


@pytest.mark.parametrize(
    ("change", "installed", "source"),
    [
        ({}, None, "cpu index"),
        ({}, "2.11.0", "cpu index"),
        ({}, "2.13.0", "keep"),
        ({}, "2.13.0+cpu", "keep"),
        ({"has_nvidia_driver": True}, None, "default"),
        ({"has_nvidia_driver": True}, "2.13.0+cpu", "keep"),
        ({"system": "Darwin"}, None, "default"),
    ],
)
def test_the_source_of_torch_follows_from_the_machine(change, installed, source):
    assert bootstrap.plan_torch(replace(LAPTOP, **change), installed, "2.13.0")[0] == source


def test_a_cuda_build_brings_its_own_triton():
    cuda = ["filelock", 'triton==3.7.1; platform_system == "Linux"']
    assert bootstrap.constraints_for(CONSTRAINTS, cuda) == "# why\nnumpy==2.4.6\ntorch==2.13.0\nzarr==3.1.6\n"
    assert bootstrap.constraints_for(CONSTRAINTS, ["filelock"]) == CONSTRAINTS


def test_a_pin_is_read_whole():
    assert bootstrap.pinned(CONSTRAINTS, "torch") == "2.13.0"
    with pytest.raises(LookupError, match="no line orch==<version>"):
        bootstrap.pinned(CONSTRAINTS, "orch")


def test_extras_add_up_and_a_changed_key_installs_them_all_again():
    stamp = {"key": "a", "extras": ["dev"]}
    assert bootstrap.missing_extras(stamp, "a", frozenset({"dev"})) is None
    assert bootstrap.missing_extras(stamp, "a", frozenset()) is None
    assert bootstrap.missing_extras(stamp, "a", frozenset({"test"})) == {"dev", "test"}
    assert bootstrap.missing_extras(stamp, "b", frozenset()) == {"dev"}
    assert bootstrap.missing_extras({}, "a", frozenset()) == frozenset()


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name in ("pyproject.toml", "constraints.txt", "workbench/bootstrap.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(CONSTRAINTS)
    return tmp_path


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "workbench/bootstrap.py"])
def test_the_key_changes_with_what_decides_the_installation(checkout, name):
    before = bootstrap.setup_key(checkout, (3, 11))
    assert before == bootstrap.setup_key(checkout, (3, 11)) != bootstrap.setup_key(checkout, (3, 12))
    (checkout / name).write_text("changed")
    assert bootstrap.setup_key(checkout, (3, 11)) != before


@pytest.mark.parametrize(
    ("line", "news"),
    [
        (
            "  Downloading torch-2.13.0-cp311-linux_x86_64.whl (526.6 MB)",
            "downloading torch-2.13.0-cp311-linux_x86_64.whl, 526.6 MB",
        ),
        (f"  Downloading {bootstrap.CPU_INDEX}/torch-2.whl (1.1 GB)", "downloading torch-2.whl, 1.1 GB"),
        ("  Downloading tqdm-4.70-py3-none-any.whl (78 kB)", ""),
        ("  Downloading rich-15-py3-none-any.whl (1.3 MB)", ""),
        ("Installing collected packages: numpy, torch, zarr", "unpacking packages: 3"),
        ("Collecting numpy", ""),
    ],
)
def test_large_downloads_are_news_and_small_ones_are_not(line, news):
    assert bootstrap.progress_of(line) == news


def serve_once(reply: bytes | None) -> tuple[str, socket.socket]:
    """A server for one request; without a reply it accepts and stays silent."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1024)
            if reply is None:
                client.recv(1024)
            else:
                client.sendall(reply)

    threading.Thread(target=answer, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/", server


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", False),
        (b"not http\r\n\r\n", False),
        (None, False),
    ],
)
def test_only_success_counts_as_an_answer_and_silence_is_short(reply, expected):
    url, server = serve_once(reply)
    with server:
        began = time.monotonic()
        assert bootstrap.answers(url, 0.5) is expected
        assert time.monotonic() - began < 2


def test_a_closed_port_and_a_wrong_address_do_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not bootstrap.answers(f"http://127.0.0.1:{port}/", 0.5)
    assert not bootstrap.answers("no-scheme", 0.5)


class Recorded(bootstrap.Setup):
    """A set-up whose pip is a list of what it was asked."""

    def __init__(self, root: Path, machine: bootstrap.Machine, *, fails: str = ""):
        super().__init__(root, machine)
        self.asked: list[str] = []
        self.fails = fails

    def pip(self, *arguments: str) -> bool:
        self.asked.append(" ".join(arguments).replace(str(self.root), "."))
        return not (self.fails and self.fails in self.asked[-1])

    def create(self, *, moved: bool) -> None:
        self.python.parent.mkdir(parents=True, exist_ok=True)
        self.python.touch()

    def warm_up(self) -> None:
        self.asked.append("imports")

    def build_lab(self) -> None:
        self.asked.append("lab")

    def inside(self) -> dict[str, object]:
        return {"python": [3, 11], "torch": None, "torch_requires": []}


PIP, TORCH = "--upgrade pip>=25", "--no-deps torch==2.13.0"
REST = ["imports", "lab"]
FROM_CPU_INDEX = f"{TORCH} --index-url {bootstrap.CPU_INDEX} --timeout 15 --retries 1"


@pytest.fixture
def reachable(monkeypatch):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: True)


def test_a_laptop_gets_torch_from_the_cpu_index(checkout, reachable):
    setup = Recorded(checkout, LAPTOP)
    assert setup.run(frozenset({"test"}))
    assert setup.asked == [PIP, FROM_CPU_INDEX, "--editable .[test] --constraint ./.venv/constraints.txt", *REST]


def test_an_unreachable_cpu_index_costs_no_pip_call_and_is_said(checkout, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: False)
    setup = Recorded(checkout, LAPTOP)
    assert setup.run(frozenset())
    assert setup.asked == [PIP, TORCH, "--editable . --constraint ./.venv/constraints.txt", *REST]
    said = capsys.readouterr().out
    assert "did not answer within 4 s" in said
    assert "may hold the CUDA build of several GB" in said


def test_a_cpu_index_that_fails_later_falls_back_too(checkout, reachable):
    setup = Recorded(checkout, LAPTOP, fails="--index-url")
    assert setup.run(frozenset())
    assert setup.asked[1:3] == [FROM_CPU_INDEX, TORCH]


def test_a_machine_with_a_gpu_does_not_ask_the_cpu_index(checkout, monkeypatch):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: pytest.fail("asked"))
    setup = Recorded(checkout, replace(LAPTOP, has_nvidia_driver=True))
    assert setup.run(frozenset())
    assert setup.asked[1] == TORCH


def test_a_second_run_asks_nothing_and_a_failed_one_is_tried_again(checkout, reachable):
    assert not Recorded(checkout, LAPTOP, fails="--editable").run(frozenset())
    assert Recorded(checkout, LAPTOP).run(frozenset())
    again = Recorded(checkout, LAPTOP)
    assert again.run(frozenset())
    # the extension has a stamp of its own: its sources change without the environment
    assert again.asked == ["lab"]
    (checkout / "pyproject.toml").write_text("changed")
    changed = Recorded(checkout, LAPTOP)
    assert changed.run(frozenset())
    assert len(changed.asked) == 5


def test_the_extension_is_built_by_the_environments_python_and_its_failure_is_no_failure(checkout, monkeypatch):
    asked = []
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda command, check: asked.append((command, check)))
    setup = bootstrap.Setup(checkout, LAPTOP)
    setup.build_lab()
    assert asked == [([str(setup.python), "-P", str(checkout / "workbench/lab/build.py")], False)]


def test_a_failing_pip_shows_the_end_of_its_log_and_the_exit_status(checkout, capsys):
    setup = bootstrap.Setup(checkout, LAPTOP)
    setup.venv.mkdir()
    setup.python = Path(sys.executable)
    assert not setup.pip("--no-index", "--find-links", str(checkout), "no-such-package")
    said = capsys.readouterr().out
    assert "No matching distribution found for no-such-package" in said
    assert "pip failed with exit status 1; the whole log is" in said
    assert "no-such-package" in setup.log.read_text()


def test_an_installation_that_cannot_be_imported_is_no_success(checkout):
    setup = bootstrap.Setup(checkout, LAPTOP)
    setup.python = Path("/bin/false")
    with pytest.raises(subprocess.CalledProcessError):
        setup.warm_up()


def test_an_environment_that_was_moved_is_made_again(checkout, monkeypatch):
    made = []
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda command, **options: made.append(command))
    setup = bootstrap.Setup(checkout, LAPTOP)
    setup.python.parent.mkdir(parents=True)
    setup.python.touch()
    setup.create(moved=True)
    assert [command[1:4] for command in made] == [["-m", "venv", "--clear"]]


def test_an_environment_of_another_python_or_without_pip_is_made_again(checkout, monkeypatch):
    setup = bootstrap.Setup(checkout, LAPTOP)
    setup.python.parent.mkdir(parents=True)
    setup.python.symlink_to(sys.executable)
    found = setup.inside()
    assert found["python"] == list(sys.version_info[:2])
    setup.python.unlink()
    setup.python.write_text("#!/bin/sh\nexit 1\n")
    setup.python.chmod(0o755)
    assert setup.inside() == {}


def test_old_interpreters_can_read_the_file_and_it_needs_nothing_installed():
    text = Path(bootstrap.__file__).read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    roots = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert roots <= sys.stdlib_module_names


def test_it_runs_by_path_from_anywhere(tmp_path):
    command = [sys.executable, "-S", bootstrap.__file__, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--extras" in done.stdout
