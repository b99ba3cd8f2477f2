"""A random linear map that is never trained, in float32 whatever the model's dtype."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["FrozenLinear"]


class FrozenLinear(nn.Module):
    """A linear map with bias, uniform within 1 / sqrt(inputs), whose tensors are buffers: saved, never optimised."""

    weight: Float[Tensor, "O I"]
    bias: Float[Tensor, "O"]

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        bound = inputs**-0.5
        self.register_buffer("weight", torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.register_buffer("bias", torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """The inputs after the map, float32."""
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.linear(x.float(), self.weight.float(), self.bias.float())
