"""Held-out loss, in bits per byte, so that tokenizers can be compared."""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.records import Batch, Output
from workbench.data.batches import Batches
from workbench.model.transformer import Transformer
from workbench.train.forward import forward_batch
from workbench.train.loss import NOT_SCORED, token_losses
from workbench.train.precision import FULL_PRECISION, Precision

__all__ = ["bits_per_byte", "evaluate_domains"]


def evaluate_domains(
    model: Transformer,
    batches: Batches,
    max_windows: int,
    precision: Precision,
    *,
    on_output: Callable[[Batch, Output], None] = lambda batch, output: None,
) -> dict[str, float]:
    """Held-out loss of each domain of a corpus [bit/byte], over at most so many windows of each."""
    return {
        domain: bits_per_byte(
            model,
            batches.evaluation(domain, max_windows=max_windows),
            batches.tokenizer.byte_counts,
            precision=precision,
            on_output=on_output,
        )
        for domain in batches.corpus.domains
    }


@torch.no_grad()
def bits_per_byte(
    model: Transformer,
    batches: Iterable[Batch],
    byte_counts: Int[Tensor, "V"],
    *,
    precision: Precision = FULL_PRECISION,
    on_output: Callable[[Batch, Output], None] = lambda batch, output: None,
) -> float:
    """Cross-entropy of the targets divided by the bytes they stand for [bit/byte].

    Routers decide as in prefill: no noise, nothing dropped. A router that sees later tokens sees some of what it
    is to predict, so its number is too good.

    Args:
        byte_counts: bytes that each vocabulary entry stands for; an end token costs bits and has no bytes.
        on_output: sees every batch with what the model returned.

    Returns:
        NaN when the targets stand for no byte.
    """
    total_bits, total_bytes = 0.0, 0
    for batch in batches:
        assert batch.target_ids is not None, "evaluation batches have targets"
        output = forward_batch(model, batch, RouteContext(phase="prefill"), precision)
        on_output(batch, output)
        loss = token_losses(output.logits, batch.target_ids.to(model.device))
        total_bits += float(loss.double().sum()) / math.log(2)
        total_bytes += int(byte_counts[batch.target_ids[batch.target_ids != NOT_SCORED]].sum())
    return total_bits / total_bytes if total_bytes else math.nan
