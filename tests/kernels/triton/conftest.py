"""Triton's interpreter and a GPU, each in one child process that lasts for the session, and compiling without a GPU."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., dict[str, Any]]
# Relative Frobenius error: of the output, and of any gradient.
LIMITS = {"float32": (1e-6, 2e-6), "float16": (7.5e-4, 7.5e-4), "bfloat16": (3.5e-3, 6e-3)}


class Child:
    """A process that answers questions; one that has died says why and is started again."""

    def __init__(self, environment: dict[str, str]):
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[str] | None = None
        self.errors = tempfile.TemporaryFile("w+")

    def ask(self, operation: str, **words: object) -> dict[str, Any]:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, str(Path(__file__).with_name("triton_child.py"))]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
            self.process = subprocess.Popen(command, env=self.environment, text=True, **pipes)
        self.process.stdin.write(json.dumps({"operation": operation, **words}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            pytest.fail(f"the child process died:\n{self.errors.read()[-4000:]}")
        return json.loads(line)

    def end(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
        self.errors.close()


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Ask]:
    """Asks an operation of Triton's interpreter, on the CPU."""
    child = Child({"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "WORKBENCH_KERNELS": "triton"})
    yield lambda operation, **words: child.ask(operation, device="cpu", **words)
    child.end()


@pytest.fixture(scope="session")
def on_gpu(tmp_path_factory) -> Iterator[Ask]:
    """Asks an operation of the GPU."""
    cache = str(tmp_path_factory.mktemp("triton"))
    child = Child({"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    yield lambda operation, **words: child.ask(operation, device="cuda", **words)
    child.end()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Iterator[Ask]:
    """Asks what the compiler makes of the launches of a layer, or which they are; no GPU takes part."""
    child = Child({"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))})
    yield lambda operation="compile_layer", **words: child.ask(operation, **words)
    child.end()


@pytest.fixture(scope="session")
def small_errors() -> Callable[..., None]:
    """Errors are below the limits of a dtype; names in `exact` are truths that must be 1."""

    def check(errors: dict[str, float], dtype: str, *, exact: tuple[str, ...] = ()) -> None:
        out, gradient = LIMITS[dtype]
        outputs = ("out", "hidden", "activated", "weighted")
        over = {
            name: value
            for name, value in errors.items()
            if not (value == 1 if name in exact else value <= (out if name in outputs else gradient))
        }
        assert over == {}

    return check


@pytest.fixture(scope="session")
def all_true() -> Callable[[dict[str, float]], None]:
    """Every truth is 1, and there are some."""

    def check(truths: dict[str, float]) -> None:
        assert truths != {}
        assert {name: value for name, value in truths.items() if value != 1} == {}

    return check
