"""Swish experts without a gate branch: two matrices each (BlockFFN's body)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from workbench_kernels import grouped_mm, offsets_of

from workbench.core.experts import RowExperts

__all__ = ["SwishMLPExperts"]


class SwishMLPExperts(RowExperts):
    """down(swish(up(x))) for each of E experts, without biases.

    Args:
        width: model width D.
        num_experts: experts E.
        hidden: expert hidden width F.

    Source: arXiv 2507.08771, section 3. A gated expert would make the router less sparse.
    """

    up: Float[Tensor, "E F D"]
    down: Float[Tensor, "E D F"]

    def __init__(self, width: int, num_experts: int, *, hidden: int):
        super().__init__(num_experts)
        self.up = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, hidden))

    def tensors(self) -> tuple[Any, ...]:
        """The up and the down projections."""
        return self.up, self.down

    def inputs(self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        """The rows for the way up, what comes after swish for the way down."""
        return rows, nn.functional.silu(rows @ tensors[0].T)

    def rows(
        self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"], counts: Int[Tensor, "E"]
    ) -> Float[Tensor, "N D"]:
        """The rows after their expert."""
        up, down = tensors
        offsets = offsets_of(counts)
        hidden = _swish(grouped_mm(rows, up, offsets), counts)
        return grouped_mm(hidden, down, offsets).to(rows.dtype)


def _swish(hidden: Float[Tensor, "N F"], counts: Int[Tensor, "E"]) -> Float[Tensor, "N F"]:
    if torch.is_grad_enabled() or hidden.device.type != "cpu":
        return nn.functional.silu(hidden)
    # PyTorch rounds the last few numbers of a tensor otherwise than the rest on a CPU, and what an expert computes
    # must not depend on the others that run with it: offloaded ones come in parts.
    for part in torch.split(hidden, counts.tolist()):
        nn.functional.silu(part, inplace=True)
    return hidden
