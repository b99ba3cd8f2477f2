"""Every registered name is judged by the same functions; a planted router shows that each of them can fail."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from workbench.core import Router
from workbench.experts import EXPERTS
from workbench.routers import ROUTERS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`router` and `experts_kind` run over the names of their registries."""
    for argument, registry in (("router_name", ROUTERS), ("experts_name", EXPERTS)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, registry.names())


@pytest.fixture
def router(router_name) -> type[Router]:
    """The class behind every registered name, one after the other."""
    return ROUTERS.get(router_name)


def load_neighbour(name: str) -> ModuleType:
    """A module beside this file, by its plain name; test folders are no packages."""
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def neighbour() -> Callable[[str], ModuleType]:
    """Loads a module beside this file."""
    return load_neighbour


@pytest.fixture(scope="session")
def stage(neighbour) -> ModuleType:
    """Tokens, contexts and small models for a router."""
    return neighbour("stage")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Entry:
    """An entry point of another distribution."""

    name: str
    value: str
    loaded: type

    def load(self) -> type:
        return self.loaded


@pytest.fixture
def plant(monkeypatch) -> Callable[[type[Router]], type[Router]]:
    """Registers a router of the test through an entry point, as another distribution would."""

    def register(cls: type[Router]) -> type[Router]:
        entry = Entry("planted", f"{cls.__module__}:{cls.__qualname__}", cls)
        monkeypatch.setattr(
            "workbench.core.registry.entry_points",
            lambda **group: [entry] if group == {"group": "workbench.routers"} else [],
        )
        assert "planted" in ROUTERS.names()
        return cls

    return register
