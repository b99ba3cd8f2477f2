"""Plans of every awkward shape, the engines of this machine, and the accuracy that each dtype owes."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from workbench_kernels import RoutingPlan
from workbench_kernels.cpu import calls, library, tokens
from workbench_kernels.cpu import engine as cpu_engine
from workbench_kernels.reference import plan_ref

# Relative Frobenius distance to float64 on inputs of size 1: of the output, and of each gradient.
ACCURACY: Mapping[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-14, 1e-14),
    torch.float32: (1e-6, 2e-6),
    torch.float16: (7.5e-4, 1.5e-3),
    torch.bfloat16: (3.5e-3, 6e-3),
}


# Names of the instruction sets of the C++ kernels, in the order of their numbers.
TIERS = ("portable", "avx2", "avx512", "bf16", "amx")


class Case(NamedTuple):
    """A choice of experts, and the plan of it by loops."""

    expert: Tensor
    num_experts: int
    plan: RoutingPlan

    @property
    def rows(self) -> Tensor:
        """Token of each row in use, without the plan's padding."""
        return self.plan.rows[: int(self.plan.offsets[-1])]


def case_of(expert: Tensor, experts: int) -> Case:
    return Case(expert, experts, plan_ref(expert, experts))


def cases() -> dict[str, tuple[Tensor, int]]:
    """The chosen experts of each case, and how many experts there are."""
    generator = torch.Generator().manual_seed(7)

    def ranked(tokens: int, experts: int, width: int) -> Tensor:
        return torch.rand(tokens, experts, generator=generator).argsort(-1)[:, :width]

    ragged = ranked(9, 4, 2)
    dropped = torch.where(torch.rand(9, 3, generator=generator) < 0.4, -1, ranked(9, 5, 3))
    return {
        "ragged": (ragged, 4),
        "an_expert_without_rows": (ragged, 6),
        "all_in_one_expert": (torch.full((5, 1), 2), 4),
        "one_choice": (ranked(6, 3, 1), 3),
        "all_experts": (ranked(4, 3, 3), 3),
        "one_expert": (torch.zeros(4, 1, dtype=torch.long), 1),
        "no_tokens": (torch.zeros(0, 2, dtype=torch.long), 3),
        "one_token": (torch.tensor([[2, 0]]), 3),
        "dropped": (dropped, 5),
        "a_token_without_rows": (torch.tensor([[0, 1], [-1, -1], [1, 2]]), 3),
        "all_dropped": (torch.full((3, 2), -1), 3),
        "no_choices": (torch.zeros(3, 0, dtype=torch.long), 3),
        "the_same_expert_twice": (torch.tensor([[1, 1], [0, 1], [2, 2]]), 3),
        "experts_of_another_process": (torch.tensor([[0, 3], [4, 1], [9, 2]]), 3),
        "ids_of_32_bits": (ragged.int(), 4),
    }


@pytest.fixture(params=cases())
def case(request) -> Case:
    return case_of(*cases()[request.param])


@pytest.fixture
def case_named() -> Callable[[str], Case]:
    return lambda name: case_of(*cases()[name])


def use(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the kernels of one engine in this test; a machine that cannot is told apart in the report."""
    if engine == "cpp":
        library = importlib.util.find_spec("workbench_kernels.cpu.library")
        is_there, reason = importlib.import_module(library.name).availability() if library else (False, "not built in")
        if not is_there:
            pytest.skip(f"no compiled kernels here: {reason}")
    monkeypatch.setenv("WORKBENCH_KERNELS", engine)


@pytest.fixture(params=["torch", "cpp"])
def engine(request, monkeypatch) -> str:
    use(request.param, monkeypatch)
    return request.param


EXACT = {"torch-float64": torch.float64, "torch-float32": torch.float32, "cpp-float32": torch.float32}


@pytest.fixture(params=EXACT)
def dtype(request, monkeypatch) -> torch.dtype:
    """A dtype in which results agree to the last digits, on each engine that computes in it."""
    use(request.param.partition("-")[0], monkeypatch)
    return EXACT[request.param]


@pytest.fixture
def draw(dtype) -> Callable[..., Tensor]:
    """A leaf of normal numbers; every call draws others."""
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return numbers


def gradients(out: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients for an uneven upstream gradient; zero where the output does not depend on a leaf."""
    if not out.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad(out, leaves, upstream, allow_unused=True, materialize_grads=True)


@pytest.fixture
def agree(assert_close) -> Callable[..., None]:
    """Two computations of the same number, with the gradients of every leaf."""

    def compare(ours: Tensor, reference: Tensor, leaves: tuple[Tensor, ...]) -> None:
        assert ours.dtype == reference.dtype
        assert ours.requires_grad
        assert_close(ours, reference)
        for got, expected in zip(gradients(ours, leaves), gradients(reference, leaves), strict=True):
            assert_close(got, expected)

    return compare


@pytest.fixture(params=range(library.kernels().tier + 1) if library.availability()[0] else (), ids=TIERS.__getitem__)
def tier(request, monkeypatch) -> int:
    """Every instruction set that this machine has, one after the other."""
    found = library.kernels()._replace(tier=request.param)
    for module in (calls, cpu_engine, tokens):
        monkeypatch.setattr(module, "kernels", lambda: found)
    return request.param


@pytest.fixture(scope="session")
def distance() -> Callable[[Tensor, Tensor], float]:
    """Relative Frobenius distance; how far two computations of the same tensor are apart."""

    def between(found: Tensor, exact: Tensor) -> float:
        exact = exact.detach().double()
        return float((found.detach().double() - exact).norm() / exact.norm())

    return between


@pytest.fixture(scope="session")
def accuracy() -> Mapping[torch.dtype, tuple[float, float]]:
    return ACCURACY


@pytest.fixture(scope="session")
def fullgraph(root) -> Mapping[str, float]:
    """How far each operator under `torch.compile(fullgraph=True)` is from eager, by the name of the check."""
    script = root / "tests" / "kernels" / "fullgraph.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
