"""Forward passes without a model, for every trace test."""

from collections.abc import Callable

import pytest
import torch

from workbench.core.records import Batch, Output, Site, StepReport
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting

Pass = tuple[Batch, Output]


def output_of(batch: Batch, routings: list[Routing], **site: object) -> Output:
    rows, columns = batch.token_ids.shape
    sites = tuple(
        Site(**{"layer": layer, "iteration": 0, "module": f"layers.{layer}", "router": "top_k", "routing": r} | site)
        for layer, r in enumerate(routings)
    )
    return Output(logits=torch.zeros(rows, columns, 1), sites=sites)


@pytest.fixture(scope="session")
def outputs() -> Callable[..., Output]:
    return output_of


@pytest.fixture(scope="session")
def forward() -> Callable[..., Pass]:
    def make(rows: int = 1, columns: int = 3, layers: int = 2, experts: int = 4, top_k: int = 2, seed: int = 0, **site):
        generator = torch.Generator().manual_seed(seed)
        token_ids = torch.randint(0, 50, (rows, columns), generator=generator)
        batch = Batch(token_ids=token_ids, domain=token_ids % 2, domains=("prose", "code"))
        routings = []
        for _ in range(layers):
            prob = torch.randn(rows * columns, experts, generator=generator).softmax(-1)
            weight, expert = prob.topk(top_k)
            keep = torch.rand(expert.shape, generator=generator) < 0.8
            routings.append(SparseRouting.from_topk(expert, weight, num_experts=experts, keep=keep, prob=prob))
        return batch, output_of(batch, routings, **site)

    return make


@pytest.fixture(scope="session")
def report() -> Callable[..., StepReport]:
    def make(step: int, **fields: object) -> StepReport:
        known = {
            "loss": 5.0 / step,
            "aux_losses": {"balance": 1.0 + step},
            "aux_weights": {"balance": 0.01},
            "learning_rate": 1e-3,
            "grad_norm": 0.5,
            "tokens": 10 * step,
            "tokens_per_second": 100.0,
            "wall_seconds": float(step),
        }
        return StepReport(step=step, **(known | fields))

    return make
