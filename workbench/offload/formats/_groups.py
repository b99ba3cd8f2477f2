"""Groups of neighbouring weights that share a scale: whole numbers, and the scale that they are multiples of."""

from math import prod

import torch
from jaxtyping import BFloat16, Float, Int8
from torch import Tensor

__all__ = ["grouped", "rounded", "scaled"]


def grouped(shape: torch.Size, group: int) -> tuple[int, int, int]:
    """Rows of the last axis, groups of a row and weights of a group; a row is filled up to whole groups."""
    length = max(shape[-1], 1)
    width = min(group, length)
    return prod(shape[:-1]), -(-length // width), width


def rounded(values: Tensor, group: int, most: int) -> tuple[Int8[Tensor, "R G W"], BFloat16[Tensor, "R G"]]:
    """The nearest multiples of a scale, from `-most` to `most`, and the scales.

    The scale is rounded before the weights are, so that its own rounding costs nothing: no weight is off by more
    than half a scale. bfloat16 has the range of float32, so that no weights are too small or too large for it.

    Args:
        group: weights that share a scale, along the last axis, which is the one that a product sums over.
    """
    rows, groups, width = grouped(values.shape, group)
    flat = values.float().reshape(rows, -1)
    filled = torch.nn.functional.pad(flat, (0, groups * width - flat.shape[1])).view(rows, groups, width)
    scale = (filled.abs().amax(-1) / most).bfloat16()
    # a group of zeros has scale 0, and zeros are its multiples.
    divisor = torch.where(scale == 0, 1.0, scale.float())
    codes = (filled / divisor.unsqueeze(-1)).round().clamp(-most, most)
    return codes.to(torch.int8), scale


def scaled(codes: Int8[Tensor, "C"], scale: BFloat16[Tensor, "R G"], out: Float[Tensor, "..."], group: int) -> None:
    """The multiples, into a contiguous tensor.

    Args:
        codes: of all groups in their order, in as many pieces as one likes to give: flat.
    """
    rows, groups, width = grouped(out.shape, group)
    is_whole = out.numel() == rows * groups * width and out.dtype == torch.float32
    filled = out.view(rows, groups, width) if is_whole else torch.empty(rows, groups, width, device=out.device)
    filled.view(-1).copy_(codes)
    filled.mul_(scale.float().unsqueeze(-1))
    if not is_whole:
        out.copy_(filled.view(rows, -1)[:, : max(out.shape[-1], 1)].reshape(out.shape))
