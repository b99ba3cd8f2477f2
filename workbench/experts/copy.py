"""Copy experts: what is sent to them comes back as it is, without a matrix product."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.sparse import SparseRouting

__all__ = ["CopyExperts"]


class CopyExperts(Experts):
    """The identity, times the weight of the assignment; nothing is dispatched.

    Source: arXiv 2410.07348, equation 4.
    """

    draws_own_weights = True

    def __init__(self, width: int, num_experts: int):
        super().__init__(num_experts)

    def tensors(self) -> tuple[Any, ...]:
        """None."""
        return ()

    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """Each token times the weight it sends here."""
        kept = plan.weight if plan.kept is None else plan.weight.masked_fill(~plan.kept, 0)
        return x * kept.sum(-1, keepdim=True).to(x.dtype)

    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """The rows as they are; `run` adds the weights before it multiplies, so that sums may be rounded otherwise."""
        return plan.dispatch(x)[0]
