"""Held-out loss per domain, in bits per byte, so that tokenizers can be compared."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.records import Batch
from workbench.model.transformer import Transformer
from workbench.train.loss import token_losses
from workbench.train.precision import autocast

__all__ = ["bits_per_byte"]


@torch.no_grad()
def bits_per_byte(
    model: Transformer, batches: Iterable[Batch], byte_counts: Int[Tensor, "V"], *, dtype: torch.dtype = torch.float32
) -> float:
    """Cross-entropy of the targets divided by the bytes they stand for [bit/byte].

    Routers decide as in prefill: no noise, nothing dropped.

    Args:
        byte_counts: bytes that each vocabulary entry decodes to.

    Returns:
        NaN when the batches hold no target.
    """
    total_bits, total_bytes = 0.0, 0
    for batch in batches:
        assert batch.target_ids is not None, "evaluation batches have targets"
        targets = batch.target_ids.to(model.device)
        mask = None if batch.mask is None else batch.mask.to(model.device)
        with autocast(model.device, dtype):
            output = model(batch.token_ids.to(model.device), mask=mask, context=RouteContext(phase="prefill"))
        loss = token_losses(output.logits, targets)
        total_bits += float(loss.double().sum()) / math.log(2)
        scored = targets[targets != -100].cpu()
        total_bytes += int(byte_counts[scored].sum())
    return total_bits / total_bytes if total_bytes else math.nan
