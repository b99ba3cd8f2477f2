"""Rotary positions in the half-split layout that Hugging Face checkpoints use."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Rotation", "rotate", "rotation"]

Rotation = tuple[Float[Tensor, "T Q"], Float[Tensor, "T Q"]]


def rotation(position: Int[Tensor, "T"], head_dim: int, theta: float) -> Rotation:
    """Cosine and sine of every token's angles, each pair of channels (i, i + head_dim / 2) sharing one.

    Source: arXiv 2104.09864.
    """
    angle = position.float().unsqueeze(-1) * _frequencies(head_dim, theta, position.device)
    return angle.cos(), angle.sin()


def rotate(x: Float[Tensor, "T H Q"], turn: Rotation) -> Float[Tensor, "T H Q"]:
    """Queries or keys turned to their positions."""
    cosine, sine = (part.to(x.dtype).unsqueeze(1) for part in turn)
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


@lru_cache(maxsize=16)
def _frequencies(head_dim: int, theta: float, device: torch.device) -> Float[Tensor, "Q"]:
    with torch.inference_mode(False):
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        return (1.0 / theta**exponent).repeat(2)
