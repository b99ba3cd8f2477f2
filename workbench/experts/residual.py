"""Residual experts: a stack of small blocks that starts as the identity (BASE's body)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from workbench_kernels import grouped_mm, offsets_of

from workbench.core.check import at_least
from workbench.core.experts import RowExperts

__all__ = ["ResidualExperts"]

_EPSILON = 1e-5


class ResidualExperts(RowExperts):
    """What a stack of blocks x + W2 relu(W1 norm(x) + b1) + b2 adds to its input.

    The layer adds the input itself. W2 and b2 start at zero, so a new layer is the identity; the paper's
    code leaves b2 random.

    Args:
        width: model width D.
        num_experts: experts E.
        hidden: hidden width F of a block. The paper uses four times the width.
        blocks: blocks of one expert.

    Source: arXiv 2103.16716, section 3, and its released code.
    """

    draws_own_weights = True
    gain: Float[Tensor, "E blocks D"]
    shift: Float[Tensor, "E blocks D"]
    up: Float[Tensor, "E blocks F D"]
    up_bias: Float[Tensor, "E blocks F"]
    down: Float[Tensor, "E blocks D F"]
    down_bias: Float[Tensor, "E blocks D"]

    def __init__(self, width: int, num_experts: int, *, hidden: int, blocks: int = 1):
        super().__init__(num_experts)
        at_least("blocks", blocks, 1)
        self.gain = nn.Parameter(torch.ones(num_experts, blocks, width))
        self.shift = nn.Parameter(torch.zeros(num_experts, blocks, width))
        bound = width**-0.5
        self.up = nn.Parameter(torch.empty(num_experts, blocks, hidden, width).uniform_(-bound, bound))
        self.up_bias = nn.Parameter(torch.empty(num_experts, blocks, hidden).uniform_(-bound, bound))
        self.down = nn.Parameter(torch.zeros(num_experts, blocks, width, hidden))
        self.down_bias = nn.Parameter(torch.zeros(num_experts, blocks, width))

    def tensors(self) -> tuple[Any, ...]:
        """Gain and shift of the norms, the maps and their biases."""
        return self.gain, self.shift, self.up, self.up_bias, self.down, self.down_bias

    def rows(
        self, tensors: tuple[Any, ...], rows: Float[Tensor, "N D"], counts: Int[Tensor, "E"]
    ) -> Float[Tensor, "N D"]:
        """What each row's expert adds to it."""
        offsets = offsets_of(counts)
        of_row = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
        added = torch.zeros_like(rows)
        for block in zip(*(tensor.unbind(1) for tensor in tensors), strict=True):
            gain, shift, up, up_bias, down, down_bias = block
            x = nn.functional.layer_norm(rows + added, rows.shape[-1:], eps=_EPSILON)
            x = x * gain[of_row] + shift[of_row]
            x = grouped_mm(x.to(rows.dtype), up, offsets, bias=up_bias).relu()
            added = added + grouped_mm(x, down, offsets, bias=down_bias).to(rows.dtype)
        return added
