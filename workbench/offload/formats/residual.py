"""Residual blocks: signs and a few factors of the magnitudes, block after block (BitStack)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.offload.expert_format import ExpertFormat, Scales
from workbench.offload.formats._signs import packed_signs, signs

__all__ = ["Residual", "magnitude_factors"]


class Residual(ExpertFormat):
    """A stack of blocks of equal size; an expert is read from as many as a budget allows.

    A block holds the signs of what is left of a matrix and the best factors of its magnitudes. Unlike the paper,
    factors are rounded to half precision before they are subtracted, so that the next block takes up the rounding.
    A vector is a matrix of one row.

    With the inputs of a calibration text the columns of a matrix are scaled by their size before it is taken apart,
    so that a block takes away what the text would miss most. The paper divides the inputs by the same size, in the
    norm or the matrix before; here the right factors are divided, so that reading knows nothing of it.

    Args:
        levels: blocks of an expert. The paper uses 16.
        rank: factors of a block. The paper uses 16, for matrices of 4096; small ones pay too much for them.

    Source: arXiv 2410.23918, section 3 and its released code (iterative absolute-value decomposition).
    """

    takes_scales: ClassVar[bool] = True

    def __init__(self, *, levels: int = 4, rank: int = 1):
        super().__init__(levels=levels)
        at_least("rank", rank, 1)
        self.rank = rank

    def page_of(self, left: Sequence[Tensor], scales: Scales | None = None) -> list[Tensor]:
        """Signs, left and right factors of every tensor in turn."""
        page = []
        for tensor, scale in zip(left, [None] * len(left) if scales is None else scales, strict=True):
            # the size of all columns together changes nothing, but half precision has its ends.
            column = None if scale is None else scale / scale.mean()
            matrices = _matrices(tensor if column is None else tensor * column.unsqueeze(-2))
            below, right = zip(*(magnitude_factors(one, self.rank) for one in matrices), strict=True)
            factors = torch.stack(right)
            if column is not None:
                factors = factors / column.reshape(-1, 1, column.shape[-1])
            # a size is above 0, so signs are those of the tensor as it is.
            page += [packed_signs(tensor), torch.stack(below).half(), factors.half()]
        return page

    def write(self, page: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """Signs times magnitudes."""
        for packed, below, right, target in zip(page[::3], page[1::3], page[2::3], out, strict=True):
            # products in memory of their own: where a factor lies must not decide how its sums are added.
            magnitude = below.float() @ right.float()
            torch.mul(magnitude.view(target.shape), signs(packed, target.numel()).view(target.shape), out=target)


def magnitude_factors(matrix: Float[Tensor, "M N"], rank: int) -> tuple[Float[Tensor, "M K"], Float[Tensor, "K N"]]:
    """The two factors of the magnitudes of a matrix that lose the least; K is at most the shorter side.

    What a block leaves has the squared norm of what it was made of, less the squared singular values it takes.

    Source: arXiv 2410.23918, equations 4 to 6; here through the smaller Gram matrix, in float32 at least.
    """
    size = matrix.to(torch.promote_types(matrix.dtype, torch.float32)).abs()
    # squares of the largest and the least weights that there are must be numbers.
    peak = size.amax()
    size = size / torch.where(peak > 0, peak, 1.0)
    is_tall = size.shape[0] > size.shape[1]
    wide = size.T if is_tall else size
    # eigenvectors come with ascending eigenvalues.
    vectors = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -rank:].flip(-1)
    rows = vectors.T @ wide
    root, scale = rows.norm(dim=-1).sqrt(), peak.sqrt()
    below, right = vectors * (root * scale), rows / torch.where(root > 0, root, 1.0).unsqueeze(-1) * scale
    return (right.T, below.T) if is_tall else (below, right)


def _matrices(tensor: Tensor) -> Float[Tensor, "B M N"]:
    if tensor.dim() < 2:
        return tensor.reshape(1, 1, -1)
    return tensor.reshape(-1, *tensor.shape[-2:])
