"""RMSNorm, computed in float32."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from workbench_kernels import rms_norm

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last axis, then scale by a learned vector.

    Source: arXiv 1910.07467.
    """

    weight: Float[Tensor, "D"]

    def __init__(self, width: int, *, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The normalised tensor, in its own dtype."""
        return rms_norm(x, self.weight, self.eps)
