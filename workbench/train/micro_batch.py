"""One micro-batch: forward, losses, backward, and what is left of it; and the sum over those of a step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from workbench.core.context import RouteContext
from workbench.core.records import Batch, Output, Site, Tally
from workbench.model.transformer import Transformer
from workbench.train.config import TrainConfig
from workbench.train.forward import forward_batch, training_context
from workbench.train.loss import NOT_SCORED, Auxiliary, auxiliary, check_losses, place_losses
from workbench.train.loss_rules import LossRules, step_rules
from workbench.train.precision import Precision
from workbench.train.watch import Watch

__all__ = ["MicroBatch", "first_sequence", "run_micro_batch", "tally", "try_losses"]

# training waits for a trial, and every router works with so many.
_TRIED_TOKENS = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class MicroBatch:
    """What a step keeps of a micro-batch; logits are not among it, they are large.

    Args:
        loss: mean cross-entropy of its tokens [nat/token].
        tokens: real tokens.
        sites: its routings.
        aux: its auxiliary losses.
    """

    loss: float
    tokens: int
    sites: tuple[Site, ...]
    aux: Auxiliary


def run_micro_batch(
    model: Transformer,
    batch: Batch,
    context: RouteContext,
    precision: Precision,
    *,
    share: float | None = None,
    recompute: bool = False,
    watch: Watch | None = None,
    rules: LossRules | None = None,
) -> tuple[MicroBatch, Output]:
    """A batch through the model and the losses, and what the model returned.

    Args:
        batch: with targets.
        share: part of the step that this batch is; its gradient is added with that weight. None: no gradient.
        recompute: forget activations and make them again in backward.
        watch: a shadow router, which sees this batch and may learn from it.
        rules: of the step for auxiliary losses; None leaves them to the routers.

    Raises:
        ValueError: a router asks for a loss that nobody defines, or that it gives too little for.
    """
    assert batch.target_ids is not None, "training batches have targets"
    with torch.set_grad_enabled(share is not None):
        shadow = None if watch is None else watch.shadow
        output = forward_batch(model, batch, context, precision, recompute=recompute, shadow=shadow)
        per_place = place_losses(output.logits, batch.target_ids.to(model.device))
        real = per_place.flatten() if batch.mask is None else per_place[batch.mask.to(model.device)]
        assert output.context is not None, "a model says what its routers knew"
        aux = auxiliary(output.active_sites, model.routers_of(output.active_sites), real, output.context, rules)
        loss = per_place[batch.target_ids.to(model.device) != NOT_SCORED].mean()
        if share is not None:
            if watch is not None:
                watch.learn(output, real, share)
            torch.autograd.backward((loss + aux.total) * share)
    tokens = batch.token_ids.numel() if batch.mask is None else int(batch.mask.sum())
    return MicroBatch(loss=float(loss.detach()), tokens=tokens, sites=output.active_sites, aux=aux), output


def first_sequence(batch: Batch) -> Batch:
    """The first sequence of a training batch, or the beginning of a long one, to try something on."""
    part = (slice(1), slice(_TRIED_TOKENS))
    rows: dict[str, Any] = {
        name: value[part[: value.dim()]] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    return replace(batch, **rows)


def try_losses(model: Transformer, batch: Batch, precision: Precision, config: TrainConfig, step: int) -> None:
    """Nothing, if the auxiliary losses that a training names exist and work with the routers of the model.

    Args:
        batch: its first sequence is tried, where the training gives a loss a weight.
        step: the coming one.

    Raises:
        ValueError: a loss is unknown, or a router gives too little for it.
    """
    routers = [router for layer in model.moe_layers() for router in layer.routers]
    check_losses(config.aux_weights, config.aux_schedule, routers, model.config.router.name)
    if config.aux_weights:
        context, rules = training_context(config, step), step_rules(config, step)
        run_micro_batch(model, first_sequence(batch), context, precision, rules=rules)


def tally(parts: Sequence[MicroBatch]) -> tuple[Tally, ...]:
    """Counts and mean losses of every site, summed over the step's micro-batches."""
    return tuple(_tally(index, site, parts) for index, site in enumerate(parts[0].sites))


def _tally(index: int, site: Site, parts: Sequence[MicroBatch]) -> Tally:
    routings = [part.sites[index].routing for part in parts]
    losses = [part.aux.per_site[index] for part in parts]
    return Tally(
        layer=site.layer,
        iteration=site.iteration,
        demand=torch.stack([routing.demand for routing in routings]).sum(0),
        kept=torch.stack([routing.counts for routing in routings]).sum(0),
        losses={name: sum(own[name] for own in losses) / len(losses) for name in losses[0]},
        tokens=sum(routing.num_tokens for routing in routings),
    )
