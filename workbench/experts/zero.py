"""Zero experts: what is sent to them adds nothing, at no cost."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.sparse import SparseRouting

__all__ = ["ZeroExperts"]


class ZeroExperts(Experts):
    """The zero map: only the residual stream remains of a token (AdaMoE's null experts, MoE++'s zero).

    Source: arXiv 2406.13233, section 3; arXiv 2410.07348, equation 3.
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
        """Zeros."""
        return x.new_zeros(x.shape)

    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """A row of zeros for each."""
        return torch.zeros_like(plan.dispatch(x)[0])
