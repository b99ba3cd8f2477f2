"""Which implementation runs where, and why, in words a person can check."""

import os
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Backend", "autocast_inputs", "backend_of"]


class Backend(NamedTuple):
    """An implementation and the reason for it.

    Args:
        name: `torch`, the hand-written PyTorch path; `triton` once it exists for a device.
        reason: one sentence.
    """

    name: str
    reason: str


def backend_of(device: torch.device | str) -> Backend:
    """The kernels used on a device.

    Raises:
        ValueError: `WORKBENCH_KERNELS` names something that this version does not have.
    """
    wanted = os.environ.get("WORKBENCH_KERNELS", "torch")
    if wanted != "torch":
        raise ValueError(
            f"WORKBENCH_KERNELS must be torch, got {wanted!r}; this version has no Triton kernels yet, unset it"
        )
    kind = torch.device(device).type
    return Backend("torch", f"grouped PyTorch products per expert on {kind}; no compiled kernel in this version")


def autocast_inputs(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where it is on, as PyTorch's own products take them; float64 stays.

    An autograd function calls its products outside autocast's reach, so its inputs are cast before it.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)
