"""Tiny models on disk, what they write when all experts are in memory, and stores whose disk misbehaves."""

import inspect
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench.offload.store.expert_store as store_module
from workbench.core import Spec
from workbench.core.records import ExpertKey
from workbench.core.registry import Registry
from workbench.model.config import ModelConfig
from workbench.model.generate import Generated, Sampling, generate
from workbench.model.transformer import Transformer
from workbench.model.weights import load, save_model
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.model import OffloadedModel, open_offloaded
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CacheShape
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.expert_store import ExpertStore, write_store

# The first block is dense, so that blocks and MoE layers count differently; blocks of 24 KiB are read in place.
TINY = ModelConfig(
    vocab_size=67,
    width=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    num_experts=8,
    expert_width=64,
    router=Spec("top_k", {"top_k": 2}),
    dense_layers=(0,),
    dense_width=24,
    max_positions=128,
)
PROMPTS = [[5, 6, 7, 8, 9, 11, 2], [9], [10, 11, 50]]
SHAPE = CacheShape(num_layers=2, num_experts=8, capacity=4, top_k=2)


def running(registry: Registry) -> list[str]:
    """Names that a running model can use: no oracles, nobody who must be told where to find something."""
    found = []
    for name in registry.names():
        needed = [
            parameter
            for parameter in inspect.signature(registry.get(name)).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        ]
        if not needed and not Spec(name).build(registry, SHAPE).reads_future:
            found.append(name)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`policy_name` and `prefetcher_name` run over what a running model can use."""
    if "policy_name" in metafunc.fixturenames:
        metafunc.parametrize("policy_name", running(POLICIES))
    if "prefetcher_name" in metafunc.fixturenames:
        metafunc.parametrize("prefetcher_name", [None, *running(PREFETCHERS)])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def enlarged(model: Transformer) -> Transformer:
    """The model with random weights of which none is small, so that a wrong expert shows."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        inputs = parameter.shape[-1] if parameter.dim() > 1 else 1
        parameter.data = noise * (1.5 / inputs**0.5) if inputs > 1 else 1 + 0.3 * noise
    return model.eval()


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    return TINY


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """The folder of a tiny model; its experts are converted once and its files are not to be changed."""
    written: dict[str, Path] = {}

    def make(*, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
        key = f"{dtype} {changes}"
        if key not in written:
            written[key] = tmp_path_factory.mktemp("model")
            save_model(enlarged(Transformer(replace(TINY, **changes))).to(dtype), written[key])
        return written[key]

    return make


@pytest.fixture
def copied(checkpoint, tmp_path) -> Callable[..., Path]:
    """A copy of such a folder, to be damaged."""
    return lambda **changes: Path(shutil.copytree(checkpoint(**changes), tmp_path / "copied"))


@dataclass
class Steps:
    """Writes texts step by step."""

    new_tokens: int = 4

    def __call__(
        self,
        model: Transformer,
        prompts: list[list[int]] | None = None,
        *,
        recompute: bool | None = None,
        after: Callable[[Generated, int], object] = lambda done, step: None,
    ) -> list[Tensor]:
        """The logits of the prompt and of every new token."""
        logits = []
        is_recomputed = not model.is_causal if recompute is None else recompute
        sampling = Sampling(max_new_tokens=self.new_tokens, temperature=0)
        for step, done in enumerate(generate(model, prompts or PROMPTS, sampling, recompute=is_recomputed)):
            logits.append(done.output.logits)
            after(done, step)
        return logits


@pytest.fixture(scope="session")
def steps() -> Steps:
    return Steps()


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Three of different lengths."""
    return PROMPTS


@pytest.fixture(scope="session")
def resident(steps) -> Callable[..., list[Tensor]]:
    """What the model of a folder computes with all experts in memory."""
    known: dict[str, list[Tensor]] = {}

    def logits(folder: Path, prompts: list[list[int]] | None = None) -> list[Tensor]:
        key = f"{folder} {prompts}"
        if key not in known:
            known[key] = steps(load(folder), prompts)
        return known[key]

    return logits


@pytest.fixture
def opened() -> Iterator[Callable[..., OffloadedModel]]:
    """Opens offloaded models, and closes them at the end."""
    models: list[OffloadedModel] = []

    def open_it(folder: Path, *, store: Path | None = None, **options: Any) -> OffloadedModel:
        models.append(open_offloaded(folder, OffloadConfig(**options), store=store))
        return models[-1]

    yield open_it
    for model in models:
        model.close()


@pytest.fixture(scope="session")
def check_books() -> Callable[[OffloadEngine], None]:
    """The ledger names every byte that the link moved, and nothing beyond the budget is held."""

    def check(engine: OffloadEngine) -> None:
        link, ledger = engine.loop.link, engine.ledger
        link.settle()
        engine.loop.take_stock()
        assert ledger.moved_bytes == link.moved_bytes
        parts = (ledger.demand_bytes, ledger.useful_bytes, ledger.wasted_bytes, ledger.waiting_bytes)
        parts += (ledger.written_bytes,)
        ways = {name: way.num_bytes for name, way in engine.traffic.items()}
        assert min(parts) >= 0 and ledger.written_bytes == ways.get("device to host", 0)
        assert link.moved_bytes == sum(ways.values())
        assert ledger.moved_bytes == sum(parts)
        assert ledger.waiting_bytes == sum(ledger.unused.values())
        assert engine.resident_bytes <= engine.budget_bytes

    return check


@pytest.fixture(scope="session")
def assert_same() -> Callable[[list[Tensor], list[Tensor]], None]:
    """Every bit of every step."""

    def compare(got: list[Tensor], expected: list[Tensor]) -> None:
        assert len(got) == len(expected) > 0
        assert [step for step, pair in enumerate(zip(got, expected, strict=True)) if not torch.equal(*pair)] == []

    return compare


@pytest.fixture
def make_store(tmp_path) -> Iterator[Callable[..., ExpertStore]]:
    """A store of two tensors per expert, filled with the number of the page; of odd sizes if so wanted."""
    made: list[ExpertStore] = []

    def make(*, layers: int = 2, experts: int = 4, floats: int = 1024, seed: int = 0) -> ExpertStore:
        def tensors(page: int) -> list[Tensor]:
            return [torch.full((2, floats), float(page + seed)), torch.full((floats,), -float(page + seed))]

        folder = tmp_path / f"store{len(made)}"
        pages = ((ExpertKey(*divmod(page, experts)), tensors(page)) for page in range(layers * experts))
        shape = parts_of(tensors(0))
        write_store(folder, pages, shape, num_layers=layers, num_experts=experts, source="test")
        made.append(ExpertStore(folder, source="test"))
        return made[-1]

    yield make
    for store in made:
        store.close()


class Disk:
    """`os.preadv` of the store, made slow or faulty; `faults` are taken one per read, None for a good one.

    Slow reads run side by side, unless `turn` is a lock.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.real, self.faults, self.reads, self.seconds = os.preadv, [], [], 0.0
        self.is_broken = False
        self.turn: AbstractContextManager[object] = nullcontext()
        self.damages: Callable[[int], bool] = lambda offset: False
        monkeypatch.setattr(store_module.os, "preadv", self.preadv)

    def preadv(self, file: int, pieces: Any, offset: int) -> int:
        self.reads.append((offset, sum(len(piece) for piece in pieces)))
        with self.turn:
            time.sleep(self.seconds)
        fault = self.faults.pop(0) if self.faults else None
        if self.is_broken or fault == "error":
            raise OSError(5, "Input/output error")
        got = self.real(file, pieces, offset)
        if fault == "short":
            return got - 4096
        if fault == "flip" or self.damages(offset):
            pieces[0][5] ^= 1
        return got


@pytest.fixture
def disk(monkeypatch) -> Disk:
    return Disk(monkeypatch)
