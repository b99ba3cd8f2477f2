"""A linear map with a bias, in float32 whatever the model's dtype."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Affine"]


class Affine(nn.Module):
    """A linear map with bias; autocast is off inside.

    Args:
        bound: weights and biases start uniform between minus and plus this.
    """

    weight: Float[Tensor, "O I"]
    bias: Float[Tensor, "O"]

    def __init__(self, inputs: int, outputs: int, *, bound: float):
        super().__init__()
        self.bound = bound
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights and biases anew."""
        nn.init.uniform_(self.weight, -self.bound, self.bound)
        nn.init.uniform_(self.bias, -self.bound, self.bound)

    def forward(self, x: Float[Tensor, "T I"]) -> Float[Tensor, "T O"]:
        """The image of every token, float32."""
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.linear(x.float(), self.weight.float(), self.bias.float())
