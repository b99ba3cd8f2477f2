"""RMSNorm, computed in float32."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        if x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64):
            return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight.to(x.dtype) * nn.functional.rms_norm(x.float(), self.weight.shape, None, self.eps).to(
            x.dtype
        )
