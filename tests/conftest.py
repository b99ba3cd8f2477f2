"""What every test stands on: shapes checked, warnings seen, fixed seeds and threads, one table of tolerances."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

# Here and not by `--jaxtyping-packages` in addopts: the workers of pytest-xdist do not read addopts, and the
# signatures would be checked with one process and not with two. The tower: an int is good where a float is asked.
install_import_hook(
    ["workbench", "workbench_kernels"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

from workbench_kernels import backend  # noqa: E402 - its signatures are checked too

from workbench.model import decoding  # noqa: E402 - as above

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("house")

# What two correct computations of the same number may differ by, when sums are taken in another order.
TOLERANCE: Mapping[torch.dtype, Mapping[str, float]] = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """A folder for the pictures that browser tests take."""
    parser.addoption("--pictures", metavar="FOLDER", help="where browser tests put the pictures of README.md")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright keeps its event loop running in this thread, where no other may run then.

    They get a second try, which the summary names: other programs take the focus, and a busy machine the time.
    """
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)
    for item in items:
        if item.get_closest_marker("browser") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_worker() -> None:
    """Two workers with two threads each would fight for two cores; sums stay in the same order too."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session", autouse=True)
def caches_of_this_run(tmp_path_factory) -> Iterator[None]:
    """Token caches and sockets go to a folder of this run, which its workers share, never to the person's home."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "user-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        yield


@pytest.fixture(autouse=True)
def kernels_chosen_anew() -> Iterator[None]:
    """A test that sets `WORKBENCH_KERNELS` is heard, and the next one does not hear it."""
    backend._environment.cache_clear()
    yield
    backend._environment.cache_clear()


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same global generators, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may use the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tolerance() -> Mapping[torch.dtype, Mapping[str, float]]:
    """Keyword arguments of `torch.testing.assert_close` by dtype: the one table of the repository."""
    return TOLERANCE


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Compares two tensors with the tolerance of a dtype, by default that of the first.

    `dtype=torch.bfloat16` says that a float32 result went through bfloat16 on its way.
    """

    def compare(actual: torch.Tensor, expected: torch.Tensor, *, dtype: torch.dtype | None = None) -> None:
        torch.testing.assert_close(actual, expected, **TOLERANCE[dtype or actual.dtype])

    return compare


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """The tokens that went through one call for all layers, as they come."""
    counted, call = [], decoding.StartedStep.__call__

    def count(self: decoding.StartedStep, token_id: int, **options: object) -> object:
        counted.append(token_id)
        return call(self, token_id, **options)

    monkeypatch.setattr(decoding.StartedStep, "__call__", count)
    return counted
