"""Traces made by hand, and a reader of payloads that shares no code with the package."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import xarray as xr


def load_neighbour(name: str) -> ModuleType:
    """A module beside this file; test folders are no packages."""
    spec = spec_from_file_location(f"payload_tests_{name}", Path(__file__).parent / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """The module `sample_traces`."""
    return load_neighbour("sample_traces")


@pytest.fixture(scope="session")
def decode() -> Callable[[bytes], tuple]:
    """Header and arrays of a payload."""
    return load_neighbour("payload_reader").decode


@pytest.fixture(scope="session")
def trace_of() -> Callable[..., xr.DataTree]:
    """A trace of the given groups."""
    return lambda **groups: xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
