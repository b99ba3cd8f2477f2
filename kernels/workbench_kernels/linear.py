"""A linear map that learns, by whichever products are faster on this processor."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench_kernels.backend import backend_of, engine_of, narrowed_by_engine
from workbench_kernels.grouped_mm import grouped_mm
from workbench_kernels.token_linear import token_linear
from workbench_kernels.tracing import is_traced

__all__ = ["linear"]

_LEAST_ROWS = 32


def linear(
    x: Float[Tensor, "*S I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None = None
) -> Float[Tensor, "*S O"]:
    """Rows times the transposed weight, plus the bias, as `torch.nn.functional.linear`; sums in float32.

    On AMD's processors with AVX512-BF16, where PyTorch multiplies float32 at half of their speed, and under
    autocast casts every weight at every step, the kernels of the experts compute it; a single token
    without gradients has kernels of its own; PyTorch does the rest.
    """
    if bias is None and x.dim() == 2 and not torch.is_grad_enabled() and len(x) < _LEAST_ROWS:
        return token_linear(x, weight)
    if not _is_ours(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    offsets = torch.tensor([0, rows.shape[0]], dtype=torch.int32)
    out = grouped_mm(rows, weight.unsqueeze(0), offsets, bias=None if bias is None else bias.unsqueeze(0))
    return out.reshape(*x.shape[:-1], weight.shape[0])


def _is_ours(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or weight.dtype != torch.float32 or x.numel() < _LEAST_ROWS * x.shape[-1]:
        return False
    if is_traced(x, weight) or backend_of(x.device).name != "cpp":
        return False
    if not engine_of(backend_of(x.device)).outruns_pytorch():
        return False
    is_plain = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_plain or narrowed_by_engine(x, weight) is not None
