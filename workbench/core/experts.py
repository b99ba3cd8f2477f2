"""One set of expert mathematics, over tensors that come from anywhere."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.context import RouteContext
from workbench.core.sparse import SparseRouting

__all__ = ["Bring", "Experts", "Meanwhile", "RowExperts", "TokenWeights"]

Meanwhile = Callable[[Sequence[int]], None]
"""(the place of each chosen expert, -1 for those that are not there yet) -> those that are there have computed."""

Bring = Callable[[Sequence[int], Float[Tensor, "1 D"], RouteContext, Meanwhile], Sequence[int]]
"""(experts that a token has chosen, what they are about to see, its context, what may be called once while some are on
their way) -> the place of each on the first axis, when all are there."""


class TokenWeights(NamedTuple):
    """SwiGLU weights as a fused path for single tokens reads them.

    Args:
        gate_up: gate rows above up rows.
        bring: fills places of the first axis for a token; None where that axis is the experts themselves.
    """

    gate_up: Float[Tensor, "P F2 D"]
    down: Float[Tensor, "P D F"]
    bring: Bring | None = None


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

    @abstractmethod
    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """Every row after its expert, as `run` weighs and adds it: `plan.combine` of all rows is what `run` gives."""

    def token_weights(self) -> TokenWeights | None:
        """The weights of plain SwiGLU experts, for a fused path for single tokens; None where there is more to do."""
        return None

    def inputs(self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        """What each tensor of one expert multiplies for its rows; none where the experts do not say.

        The last axis is the tensor's last. `rows` itself where that is what is multiplied; None for what is no matrix.

        Args:
            tensors: of that expert, without the axis of experts.
        """
        return ()

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
        return plan.combine(self.unweighted(tensors, x, plan, context))

    @final
    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """Dispatch and `rows`."""
        return self.rows(tensors, *plan.dispatch(x))
