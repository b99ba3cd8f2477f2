"""Linear maps whose memory is not filled twice: `initialise` or a checkpoint fills it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from workbench_kernels import linear

__all__ = ["Linear"]


class Linear(nn.Module):
    """x times the transposed weight, plus the bias; both uninitialised.

    Not `skip_init(nn.Linear)`: that passes through the meta device, whose first random fill imports
    torch._dynamo and sympy, 3 s and 75 MB on two cores.
    """

    weight: Float[Tensor, "O I"]
    bias: Float[Tensor, "O"] | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        """The mapped rows."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, as `nn.Linear` prints them."""
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"
