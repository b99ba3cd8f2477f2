"""Small trainers on a small corpus: 62 windows in an epoch, so that 16 steps of 4 sequences end one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.core import Spec
from workbench.model import ModelConfig
from workbench.train.assemble import Request, start_training
from workbench.train.config import TrainConfig
from workbench.train.optim import named_states
from workbench.train.trainer import Trainer

CORPUS = "token_remap:num_domains=2,documents=1"
SHAPE = ModelConfig(
    vocab_size=257,
    width=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    num_experts=4,
    expert_width=32,
    router=Spec("top_k"),
)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory) -> Iterator[None]:
    """Token files go to a folder of the tests, also from processes that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shape() -> ModelConfig:
    return SHAPE


@pytest.fixture(scope="session")
def corpus() -> str:
    return CORPUS


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrainConfig]:
    """A training configuration of small batches; its fields may be changed."""

    def make(**changes: Any) -> TrainConfig:
        small = {"batch_size": 4, "sequence_length": 16, "warmup_steps": 4, "dtype": "float32"}
        return TrainConfig(**{**small, "checkpoint_every": 0, "evaluation_windows": 2, **changes})

    return make


@pytest.fixture
def start(make_config) -> Iterator[Callable[..., Trainer]]:
    """A trainer of the small model; `folder` and `router` apart, the arguments are fields of the configuration."""
    made: list[Trainer] = []

    def begin(*, folder: Path | None = None, router: str | None = None, **changes: Any) -> Trainer:
        request = Request(model=SHAPE, corpus=CORPUS, router=router)
        made.append(start_training(request, make_config(**changes), folder=folder))
        return made[-1]

    yield begin
    for trainer in made:
        if trainer.folder is not None:
            trainer.release()


def contents(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A copy of every tensor that training changes: weights, router buffers, optimiser state."""
    tensors = {**trainer.model.state_dict(), **named_states(trainer.model, trainer.optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.fixture(scope="session")
def contents_of() -> Callable[[Trainer], dict[str, torch.Tensor]]:
    return contents


@pytest.fixture(scope="session")
def assert_same_bits() -> Callable[..., None]:
    """Two dictionaries of tensors hold the same names and the same bits."""

    def compare(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
        assert actual.keys() == expected.keys()
        assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []

    return compare


@pytest.fixture(scope="session")
def losses_of() -> Callable[[Trainer, int], list[float]]:
    """The losses of so many more steps."""
    return lambda trainer, steps: [report.loss for report in trainer.run(steps)]
