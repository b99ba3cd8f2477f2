"""Constant experts: a learned mix of the token and a learned vector."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.experts import RowExperts

__all__ = ["ConstantExperts"]


class ConstantExperts(RowExperts):
    """a1 x + a2 v with (a1, a2) = softmax(W x), each expert with its own W and v.

    Source: arXiv 2410.07348, equation 5; the vector starts standard normal as in the released code.
    """

    draws_own_weights = True
    mix: Float[Tensor, "E 2 D"]
    vector: Float[Tensor, "E D"]

    def __init__(self, width: int, num_experts: int):
        super().__init__(num_experts)
        self.mix = nn.Parameter(torch.randn(num_experts, 2, width) * 0.02)
        self.vector = nn.Parameter(torch.randn(num_experts, width))

    def tensors(self) -> tuple[Any, ...]:
        """The maps of the mix, and the vectors."""
        return self.mix, self.vector

    def rows(
        self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"], counts: Int[Tensor, "E"]
    ) -> Float[Tensor, "N D"]:
        """The rows after their expert."""
        mix, vector = tensors
        parts = []
        for expert, part in enumerate(rows.split(counts.tolist())):
            own, fixed = nn.functional.linear(part, mix[expert]).softmax(-1).split(1, dim=-1)
            parts.append(own * part + fixed * vector[expert])
        return torch.cat(parts).to(rows.dtype) if parts else rows
