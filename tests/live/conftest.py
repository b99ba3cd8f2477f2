"""Small runs, open or not, that end with their test; their sockets lie in a folder of the test."""

import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from workbench.session import Session

HERE = Path(__file__).parent


def load(name, path):
    """A module by its path; test folders are no packages."""
    spec = spec_from_file_location(f"live_tests_{name}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


decode = load("payloads", HERE.parent / "payloads" / "conftest.py").decode


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path, monkeypatch):
    """Where connection files go."""
    folder = tmp_path / "runtime"
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
    return folder / "workbench"


@pytest.fixture
def session():
    """A session whose steps take some milliseconds."""
    with Session(model="tiny", batch_size=1, sequence_length=16, seed=0) as session:
        yield session


@pytest.fixture
def until():
    """Wait until something holds; fails after some seconds."""

    def wait(holds, seconds=20.0):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def caller_of():
    """Makes hubs by hand, which hang up at the end of the test."""
    callers, make = [], load("caller", HERE / "caller.py").Caller

    def caller(**how):
        callers.append(make(**how))
        return callers[-1]

    yield caller
    for one in callers:
        one.close()
