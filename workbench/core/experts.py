"""One set of expert mathematics, over tensors that come from anywhere."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.context import RouteContext
from workbench.core.sparse import SparseRouting

__all__ = ["Experts", "RowExperts"]


class Experts(nn.Module, ABC):
    """E experts of one kind. Offloaded and parallel experts have the same signature, so they stack.

    Args:
        num_experts: experts held.

    Attributes:
        draws_own_weights: the constructor sets the weights; else the model that holds them does.
    """

    draws_own_weights: ClassVar[bool] = False
    ids: Int[Tensor, "E"]

    def __init__(self, num_experts: int):
        super().__init__()
        self.num_experts = num_experts
        self.register_buffer("ids", torch.arange(num_experts), persistent=False)

    @abstractmethod
    def tensors(self) -> tuple[Any, ...]:
        """The parameters, each stacked over experts."""

    @abstractmethod
    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """Dispatch, the experts over the given tensors, weighted combine."""

    def forward(self, x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext) -> Float[Tensor, "T D"]:
        """Dispatch, the experts over their own tensors, weighted combine."""
        return self.run(self.tensors(), x, plan, context)


class RowExperts(Experts):
    """Experts that only say what happens to rows already grouped by expert."""

    @abstractmethod
    def rows(
        self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"], counts: Int[Tensor, "E"]
    ) -> Float[Tensor, "N D"]:
        """The rows after their expert; the first `counts[0]` belong to expert 0, and so on."""

    @final
    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """Dispatch, `rows`, weighted combine."""
        rows, counts = plan.dispatch(x)
        return plan.combine(self.rows(tensors, rows, counts))
