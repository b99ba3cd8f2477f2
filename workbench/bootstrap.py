"""Set-up from a bare Python: creates `.venv`, chooses the torch build, installs the workbench.

Run by path before anything is installed: `python3 workbench/bootstrap.py --extras test`. Standard library only,
in a syntax that Python 3.8 reads, so that an old interpreter prints a sentence and not a SyntaxError.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import http.client
import importlib.util
import json
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["main"]

OLDEST, NEWEST = (3, 11), (3, 13)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 4.0
HEARTBEAT_SECONDS = 15.0
INSIDE = """
import importlib.metadata, json, pip, sys
found = {"python": sys.version_info[:2], "torch": None, "torch_requires": []}
for torch in importlib.metadata.distributions(name="torch"):
    found.update(torch=torch.version, torch_requires=torch.requires or [])
print(json.dumps(found))
"""
LARGE_DOWNLOAD = re.compile(r"Downloading (?:\S*/)?(\S+?\.whl)\S* \((\d\d+(?:\.\d+)? MB|\S+ GB)\)")


@dataclass(frozen=True)
class Machine:
    """What of this machine decides the set-up."""

    system: str
    python: tuple[int, int]
    has_venv: bool
    has_make: bool
    has_nvidia_driver: bool


def missing_pieces(machine: Machine, candidates: Sequence[str] = ()) -> list[str]:
    """What this machine lacks, one sentence each with the way to get it; candidates are on its PATH."""
    found, version = [], "{}.{}".format(*machine.python)
    if machine.system == "Windows":
        found.append("Windows itself is not supported: open a WSL shell (`wsl --install`) and run this there.")
    if not OLDEST <= machine.python <= NEWEST:
        way = f"run `make setup PYTHON={candidates[0]}`" if candidates else "install one, such as python3.12"
        found.append(f"Python 3.11, 3.12 or 3.13 is needed, this is {version}: {way}.")
    elif not machine.has_venv:
        way = f"on Debian or Ubuntu `apt install python3-venv` (or python{version}-venv)"
        found.append(f"The standard modules venv and ensurepip are missing: {way}.")
    if not machine.has_make:
        found.append("make is missing: `apt install make`, or `xcode-select --install` on macOS.")
    return found


def plan_torch(machine: Machine, installed: str | None, wanted: str) -> tuple[str, str]:
    """Where torch should come from (keep, default or cpu index), and why, given the one in the environment."""
    if installed is not None and installed.partition("+")[0] == wanted:
        return "keep", f"torch {installed} is there already"
    if machine.has_nvidia_driver:
        return "default", "an NVIDIA driver is present: pip's own index has the CUDA build"
    if machine.system != "Linux":
        return "default", f"pip's own index has the right build for {machine.system}"
    return "cpu index", "no NVIDIA driver: PyTorch's index of CPU builds saves gigabytes of CUDA"


def constraints_for(constraints: str, torch_requires: Sequence[str]) -> str:
    """The constraints, less triton if this build of torch (a CUDA one) requires a triton of its own."""
    has_its_own = any(requirement.startswith("triton") for requirement in torch_requires)
    return re.sub(r"(?m)^triton==.*\n", "", constraints) if has_its_own else constraints


def pinned(constraints: str, name: str) -> str:
    """The version that the constraints give to a package."""
    if match := re.search(rf"(?m)^{re.escape(name)}==([^\s;]+)", constraints):
        return match.group(1)
    raise LookupError(f"constraints.txt has no line {name}==<version>")


def setup_key(root: Path, python: tuple[int, int]) -> str:
    """What changes whenever the environment must be installed again, extras aside."""
    files = ("pyproject.toml", "constraints.txt", "workbench/bootstrap.py")
    parts = [f"{root} {python}", *((root / name).read_text() for name in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def missing_extras(stamp: Mapping[str, Any], key: str, extras: frozenset[str]) -> frozenset[str] | None:
    """The extras to install now, or None when the environment has them all.

    What was there stays: going from `dev` to `test` and back must not install twice.
    """
    had = frozenset(stamp.get("extras", []))
    return None if stamp.get("key") == key and extras <= had else extras | had


def answers(url: str, seconds: float) -> bool:
    """True if a server answers with success within so many seconds, the name look-up included."""
    # A look-up of a name ignores socket timeouts, so the wait is on a thread that is left behind.
    replies: queue.Queue[bool] = queue.Queue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                replies.put(reply.status == 200)
        except (OSError, ValueError, http.client.HTTPException):
            replies.put(False)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return replies.get(timeout=seconds)
    except queue.Empty:
        return False


def has_nvidia_driver() -> bool:
    """True if the kernel driver is loaded, or nvidia-smi lists a GPU (as it does in WSL)."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def progress_of(line: str) -> str:
    """What a person waiting wants to know of a line of pip; empty for nothing."""
    if line.startswith("Installing collected packages:"):
        return f"unpacking packages: {line.count(',') + 1}"
    download = LARGE_DOWNLOAD.search(line)
    return "downloading {}, {}".format(*download.groups()) if download else ""


class Setup:
    """One installation into `<root>/.venv`."""

    def __init__(self, root: Path, machine: Machine):
        self.root, self.machine = root, machine
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.stamp = self.venv / "bootstrap.json"
        self.log = self.venv / "bootstrap.log"
        self.constraints = (root / "constraints.txt").read_text()
        self.began, self.doing = time.monotonic(), ""

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        sys.stdout.write(f"[{time.monotonic() - self.began:4.0f} s] {text}\n")
        sys.stdout.flush()

    def run(self, extras: frozenset[str]) -> bool:
        """Bring the environment up to date; False if pip failed."""
        key = setup_key(self.root, self.machine.python)
        stamp = json.loads(self.stamp.read_text()) if self.stamp.exists() and self.python.exists() else {}
        wanted = missing_extras(stamp, key, extras)
        if wanted is None:
            self.build_lab()
            return True
        self.create(moved=bool(stamp) and stamp.get("root") != str(self.root))
        self.stamp.unlink(missing_ok=True)
        if not self.install(wanted):
            return False
        self.warm_up()
        self.build_lab()
        fresh = self.stamp.with_suffix(".new")
        fresh.write_text(json.dumps({"key": key, "root": str(self.root), "extras": sorted(wanted)}))
        fresh.replace(self.stamp)
        self.say(f"ready: {self.venv.name} with torch {self.inside()['torch']}")
        return True

    def create(self, *, moved: bool) -> None:
        """Make the virtual environment, unless a sound one stands there."""
        if not moved and self.python.exists() and self.inside().get("python") == list(self.machine.python):
            return
        self.say(f"creating {self.venv.name} with Python {platform.python_version()}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.venv)], check=True)

    def inside(self) -> dict[str, Any]:
        """Python version of the environment, its torch and what that requires; empty if it does not start."""
        asked = subprocess.run([str(self.python), "-c", INSIDE], capture_output=True, text=True, check=False)
        return json.loads(asked.stdout) if asked.returncode == 0 else {}

    def install(self, extras: frozenset[str]) -> bool:
        """Torch first, by the plan, then everything else."""
        # The pip that comes with Python 3.11 takes twice as long to find the same versions.
        if not (self.pip("--upgrade", "pip>=25") and self.install_torch()):
            return False
        rules = self.venv / "constraints.txt"
        rules.write_text(constraints_for(self.constraints, self.inside()["torch_requires"]))
        target = f"{self.root}[{','.join(sorted(extras))}]" if extras else str(self.root)
        self.say(f"installing the workbench{' with ' + ', '.join(sorted(extras)) if extras else ''}")
        return self.pip("--editable", target, "--constraint", str(rules))

    def warm_up(self) -> None:
        """Compile the kernels, and what every command imports: -E lets it, whatever PYTHONDONTWRITEBYTECODE says."""
        self.say("compiling the C++ kernels, and importing everything once")
        use = "import xarray, zarr, ipykernel.kernelapp, jupyterlab.labapp, workbench_kernels as w; w.backend_of('cpu')"
        subprocess.run([str(self.python), "-E", "-c", use], stdin=subprocess.DEVNULL, check=True)

    def build_lab(self) -> None:
        """Build and install the JupyterLab extension where it changed; the set-up goes on without it, and says so."""
        subprocess.run([str(self.python), "-P", str(self.root / "workbench" / "lab" / "build.py")], check=False)

    def install_torch(self) -> bool:
        """Follow the plan for torch; the CPU index falls back to pip's own."""
        wanted = pinned(self.constraints, "torch")
        source, reason = plan_torch(self.machine, self.inside().get("torch"), wanted)
        self.say(f"torch {wanted}: {reason}")
        if source == "keep":
            return True
        # Dependencies come later, from the ordinary index: the CPU index mirrors only old versions of them.
        request = ("--no-deps", f"torch=={wanted}")
        if source == "cpu index":
            if not answers(f"{CPU_INDEX}/torch/", PROBE_SECONDS):
                self.say(f"{CPU_INDEX} did not answer within {PROBE_SECONDS:.0f} s")
            elif self.pip(*request, "--index-url", CPU_INDEX, "--timeout", "15", "--retries", "1"):
                return True
            self.say("taking torch from pip's own index, which may hold the CUDA build of several GB")
        return self.pip(*request)

    def pip(self, *arguments: str) -> bool:
        """Run pip with one line per large download and a sign of life; on failure show the log's end."""
        # Compiling every file of torch and JupyterLab would take half of the set-up; see `warm_up`.
        options = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-compile")
        command = [str(self.python), "-m", "pip", "install", *options, *arguments]
        recent, finished = collections.deque[str](maxlen=20), threading.Event()
        self.doing = "asking the package index"
        silent, pipe, both = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        process = subprocess.Popen(command, stdin=silent, stdout=pipe, stderr=both, text=True)
        threading.Thread(target=self.reassure, args=(finished,), daemon=True).start()
        with process, self.log.open("a") as log:
            for line in process.stdout or ():
                log.write(line)
                recent.append(line)
                if news := progress_of(line):
                    self.doing = news
                    self.say(f"  {news}")
        finished.set()
        if process.returncode != 0:
            sys.stdout.write("".join(recent))
            self.say(f"pip failed with exit status {process.returncode}; the whole log is {self.log}")
        return process.returncode == 0

    def reassure(self, finished: threading.Event) -> None:
        """Say now and then what pip is busy with."""
        while not finished.wait(HEARTBEAT_SECONDS):
            self.say(f"  still {self.doing}")


def this_machine() -> Machine:
    """The machine and the interpreter that run this file."""
    return Machine(
        system=platform.system(),
        python=(sys.version_info[0], sys.version_info[1]),
        has_venv=all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")),
        has_make=shutil.which("make") is not None,
        has_nvidia_driver=has_nvidia_driver(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check, install; the exit status."""
    parser = argparse.ArgumentParser(description="Create .venv and install MoE Workbench into it.")
    parser.add_argument("--extras", default="", help="comma-separated extras of pyproject.toml, such as test")
    extras = frozenset(parser.parse_args(arguments).extras.split(",")) - {""}
    machine = this_machine()
    candidates = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    if missing := missing_pieces(machine, candidates):
        sys.stderr.write("\n".join(missing) + "\n")
        return 1
    try:
        return 0 if Setup(Path(__file__).resolve().parent.parent, machine).run(extras) else 1
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"The set-up stopped: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("The set-up was interrupted; run it again to go on.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
