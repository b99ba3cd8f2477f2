"""A matrix times a few tokens, read once at the speed of memory: the head of a model that decodes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench_kernels.backend import backend_of, tokens_of
from workbench_kernels.tracing import is_traced

__all__ = ["token_linear"]

_MOST_TOKENS = 4


def token_linear(x: Float[Tensor, "T I"], weight: Float[Tensor, "O I"]) -> Float[Tensor, "T O"]:
    """The tokens times the transposed weight, sums in float32.

    PyTorch's product for more than four tokens, with gradients, under autocast or a tracer, and where there are no
    C++ kernels.
    """
    tokens = None
    if not torch.is_grad_enabled():
        tokens = tokens_of(backend_of(x.device, x.dtype))
    # len() and numel() take four times as long as shapes: at one token every microsecond shows.
    if tokens is None or not (
        0 < x.shape[0] <= _MOST_TOKENS
        and x.dtype == weight.dtype
        and weight.is_contiguous()
        and 0 not in weight.shape
        and not torch.is_autocast_enabled("cpu")
        and not is_traced(x, weight)
    ):
        return F.linear(x, weight)
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"x and weight must be T x I and O x I, got {tuple(x.shape)} and {tuple(weight.shape)}")
    out: Tensor = tokens.linear(x, weight)
    return out
