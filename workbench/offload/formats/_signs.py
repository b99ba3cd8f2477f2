"""Signs, eight in a byte."""

from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["packed_signs", "signs"]

_HIGHEST_FIRST = (128, 64, 32, 16, 8, 4, 2, 1)


def packed_signs(values: Tensor) -> UInt8[Tensor, "B"]:
    """A bit for every value, set where it is 0 or above; the first is the highest of the first byte."""
    bits = (values.flatten() >= 0).to(torch.uint8)
    filled = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).view(-1, 8)
    worth = torch.tensor(_HIGHEST_FIRST, dtype=torch.uint8, device=values.device)
    return (filled * worth).sum(-1, dtype=torch.uint8)


def signs(packed: UInt8[Tensor, "B"], count: int) -> Float[Tensor, "N"]:
    """The first `count` signs, as +1 and -1."""
    return _table(packed.device).index_select(0, packed.int()).view(-1)[:count]


@cache
def _table(device: torch.device) -> Float[Tensor, "256 8"]:
    byte = torch.arange(256).unsqueeze(-1)
    bits = byte & torch.tensor(_HIGHEST_FIRST)
    return torch.where(bits > 0, 1.0, -1.0).to(device)
