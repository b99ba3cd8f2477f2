"""Linear maps whose memory is not filled twice: `initialise` or a checkpoint fills it."""

from torch import nn

__all__ = ["linear"]


def linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    """An uninitialised linear map."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    return layer
