"""The map from token to logits, in float32 whatever the model's dtype."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Gate", "check_top_k"]


class Gate(nn.Module):
    """A linear map without bias from width D to E logits.

    Routers lose accuracy below float32, so autocast is off inside.

    Args:
        std: of the normal initialisation. Flaxformer's 0.02 is the default.
    """

    weight: Float[Tensor, "E D"]

    def __init__(self, width: int, num_experts: int, *, std: float = 0.02):
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T E"]:
        """Logits, float32."""
        if not torch.is_autocast_enabled(x.device.type):
            # switching off what is off takes longer than the product of one token.
            return nn.functional.linear(x.float(), self.weight.float())
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.linear(x.float(), self.weight.float())


def check_top_k(top_k: int, num_experts: int) -> int:
    """The number of choices, once it fits the number of experts.

    Raises:
        ValueError: it does not.
    """
    if not 1 <= top_k <= num_experts:
        raise ValueError(
            f"top_k must be between 1 and num_experts={num_experts}, got {top_k}; use more experts or a smaller top_k"
        )
    return top_k
