"""One forward pass over a batch: the same for training, evaluation and the probe."""

from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.records import Batch, Output
from workbench.model.shadow import Shadow
from workbench.model.transformer import Transformer
from workbench.train.config import TrainConfig
from workbench.train.precision import Precision, autocast

__all__ = ["forward_batch", "training_context"]


def training_context(config: TrainConfig, step: int, micro_batch: int = 0) -> RouteContext:
    """What routers are told of a micro-batch of the step with this index, counted from 0."""
    return RouteContext(
        phase="train", seed=config.seed, step=step, num_steps=config.num_steps or 0, micro_batch=micro_batch
    )


def forward_batch(
    model: Transformer,
    batch: Batch,
    context: RouteContext,
    precision: Precision,
    *,
    recompute: bool = False,
    shadow: Shadow | None = None,
    bias: Float[Tensor, "L E"] | None = None,
) -> Output:
    """The model's output for a batch, which is moved to the model's device.

    Args:
        recompute: forget activations and make them again in backward.
        shadow: routers that decide beside those of the model.
        bias: added to the choice of expert; None for the model's own `steering`.
    """

    def here(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(model.device)

    with autocast(model.device, precision.dtype):
        output: Output = model(
            batch.token_ids.to(model.device),
            mask=here(batch.mask),
            label=here(batch.domain),
            context=context,
            recompute=recompute,
            shadow=shadow,
            bias=bias,
        )
    return output
