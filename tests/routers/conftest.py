"""Routers whose logits the test chooses: the gate is the identity, so the tokens are the logits."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.core import RouteContext, Router, Routing, SparseRouting


@pytest.fixture
def with_logits() -> Callable[..., Router]:
    """A router of E experts and width E whose logits are its input."""

    def build(cls: type[Router], num_experts: int, **arguments: Any) -> Router:
        router = cls(num_experts, num_experts, **arguments)
        router.gate.weight.data = torch.eye(num_experts)
        return router

    return build


@pytest.fixture
def decide(with_logits) -> Callable[..., Routing]:
    """The decision of a router over the given logits."""

    def run(
        cls: type[Router],
        logits: Sequence[Sequence[float]] | Tensor,
        context: RouteContext | None = None,
        **arguments: Any,
    ) -> Routing:
        x = torch.as_tensor(logits, dtype=torch.float32)
        return with_logits(cls, x.shape[1], **arguments)(x, context or RouteContext())

    return run


@pytest.fixture
def dense_weights() -> Callable[[SparseRouting], Tensor]:
    """Weight of every expert in every token, zero where it was not chosen or was dropped."""

    def spread(routing: SparseRouting) -> Tensor:
        flat = routing.assignments()
        dense = torch.zeros(routing.num_tokens, routing.num_experts)
        return dense.index_put((flat.token, flat.expert), flat.weight * flat.kept, accumulate=True)

    return spread


@pytest.fixture
def chosen() -> Callable[[SparseRouting], list[set[int]]]:
    """The kept experts of every token."""

    def sets(routing: SparseRouting) -> list[set[int]]:
        flat = routing.assignments()
        pairs = list(zip(flat.token[flat.kept].tolist(), flat.expert[flat.kept].tolist(), strict=True))
        return [{e for t, e in pairs if t == token} for token in range(routing.num_tokens)]

    return sets
