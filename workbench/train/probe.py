"""The probe: a fixed text, routed by the model as it is now."""

import torch

from workbench.core.context import RouteContext
from workbench.core.records import Batch, Output
from workbench.data.batches import Batches
from workbench.model.shadow import Shadow
from workbench.model.transformer import Transformer
from workbench.trace.record import Recorder
from workbench.train.forward import forward_batch
from workbench.train.precision import Precision

__all__ = ["look_at_probe", "probe_loss", "record_probe"]


@torch.no_grad()
def look_at_probe(
    model: Transformer, batches: Batches, context: RouteContext, precision: Precision, *, shadow: Shadow | None = None
) -> tuple[Batch, Output]:
    """The probe text, and what the model returns for it in prefill."""
    batch = batches.probe()
    return batch, forward_batch(model, batch, context.at(phase="prefill", micro_batch=0), precision, shadow=shadow)


def record_probe(
    recorder: Recorder,
    model: Transformer,
    batches: Batches,
    context: RouteContext,
    precision: Precision,
    *,
    shadow: Shadow | None = None,
) -> None:
    """Write down how the model routes the probe text at the step of a context."""
    batch, output = look_at_probe(model, batches, context, precision, shadow=shadow)
    recorder.add(batch, output, phase="prefill", step=context.step, is_probe=True)


def probe_loss(batch: Batch, output: Output) -> float:
    """Mean cross-entropy [nat/token] of each token of the probe under what stands before it in its row."""
    target = batch.token_ids[:, 1:]
    real = torch.ones_like(target, dtype=torch.bool) if batch.mask is None else batch.mask[:, 1:] & batch.mask[:, :-1]
    logits = output.logits[:, :-1].float().cpu()
    return float(torch.nn.functional.cross_entropy(logits[real], target.cpu()[real.cpu()]))
