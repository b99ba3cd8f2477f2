"""What the README tells a person to type exists, and what is quick is run."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.routers import ROUTERS

TEXT = (Path(__file__).resolve().parents[2] / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```", TEXT)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
MENTIONED = re.findall(r"`((?:make|workbench) [^`]+)`", TEXT)
ENTRY = [sys.executable, "-m", "workbench.cli"]
# Those that print and end; the others train or need a run, so their options are looked up in their help.
QUICK = ("list", "doctor")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENTRY, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def make_targets(root: Path) -> set[str]:
    return set(re.findall(r"(?m)^([a-z][a-z-]*):", (root / "Makefile").read_text()))


def test_the_readme_has_commands():
    assert {"make workbench", "make test", "make demo"} <= set(COMMANDS)


@pytest.mark.parametrize("command", [line for line in COMMANDS + MENTIONED if line.startswith("make ")])
def test_the_make_target_exists(command, root):
    assert [word for word in shlex.split(command)[1:] if "=" not in word] in [[name] for name in make_targets(root)]


@pytest.mark.parametrize("command", [line for line in COMMANDS + MENTIONED if line.startswith("workbench ")])
def test_the_command_exists_and_knows_its_options(command):
    name, *words = shlex.split(command)[1:]
    if name in QUICK:
        done = run(name, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        return
    helped = run(name, "--help")
    assert helped.returncode == 0, helped.stderr
    assert [word for word in words if word.startswith("--") and word not in helped.stdout] == []


def test_every_command_is_of_a_kind_that_is_tested():
    assert [line for line in COMMANDS if line.split()[0] not in {"make", "workbench"}] == []


def test_the_python_in_it_compiles_and_names_what_exists():
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", TEXT)
    assert blocks
    trees = [ast.parse(block) for block in blocks]
    used = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wb"
    }
    exported = subprocess.run(
        [sys.executable, "-c", "import workbench; print(*workbench.__all__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert used <= set(exported.stdout.split())


def test_links_to_files_lead_somewhere(root):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (root / link).exists()] == []


def test_every_make_target_that_a_person_may_call_is_described(root):
    text = (root / "Makefile").read_text()
    described = set(re.findall(r"(?m)^([a-z][a-z-]*):.*## ", text))
    assert make_targets(root) - described == {"setup-test", "setup-dev"}
    [phony] = re.findall(r"(?m)^\.PHONY: (.+)$", text)
    assert make_targets(root) == set(phony.split())


def test_every_router_is_in_the_readme_with_its_paper():
    missing = []
    for name in ROUTERS.names():
        card = ROUTERS.get(name).card
        row = next((line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")), "")
        if not row or (card.arxiv or "a control") not in row:
            missing.append(name)
    assert missing == []
