"""The loss of the tokens, and the auxiliary losses that any router can ask for."""

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from workbench_kernels import cross_entropy

from workbench.core.check import did_you_mean
from workbench.core.context import RouteContext
from workbench.core.records import Site
from workbench.core.router import Router
from workbench.core.routing import Routing
from workbench.train.loss_rules import LossRules

__all__ = [
    "NOT_SCORED",
    "Auxiliary",
    "auxiliary",
    "balance",
    "check_losses",
    "entropy",
    "place_losses",
    "token_losses",
    "z_loss",
]

NOT_SCORED = -100
"""Target of a place that is not scored, as in `Batch.target_ids`."""


def place_losses(logits: Float[Tensor, "B S V"], target_ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """Cross-entropy [nat] of every place, in float32; NaN where there is no target.

    Raises:
        ValueError: a target outside of the vocabulary.
    """
    unknown = target_ids[(target_ids != NOT_SCORED) & ((target_ids < 0) | (target_ids >= logits.shape[-1]))]
    if unknown.numel():
        raise ValueError(
            f"targets must lie in 0..{logits.shape[-1] - 1} or be {NOT_SCORED}, got {int(unknown[0])}; "
            "use the tokenizer that the model was made for"
        )
    return cross_entropy(logits.flatten(0, 1), target_ids.flatten()).view(target_ids.shape)


def token_losses(logits: Float[Tensor, "B S V"], target_ids: Int[Tensor, "B S"]) -> Float[Tensor, "X"]:
    """Cross-entropy [nat] of every place that has a target, in float32."""
    return place_losses(logits, target_ids)[target_ids != NOT_SCORED]


def balance(routing: Routing, load: Float[Tensor, "E"]) -> Float[Tensor, ""]:
    """E times the sum over experts of load and mean probability: 1 when either is even.

    Raises:
        ValueError: the router gives no probabilities.

    Source: arXiv 2101.03961, equation 4, with load a share of assignments, so that the even value is
        1 for any number of choices per token.
    """
    prob = _needed(routing.prob, "balance", "probabilities")
    if prob.shape[0] == 0:
        return prob.sum()
    return prob.shape[1] * (load[: prob.shape[1]] * prob.mean(0)).sum()


def z_loss(routing: Routing, load: Float[Tensor, "E"]) -> Float[Tensor, ""]:
    """Mean squared log-sum-exp of the logits.

    Raises:
        ValueError: the router gives no logits.

    Source: arXiv 2202.08906, equation 5.
    """
    logit = _needed(routing.logit, "z", "logits")
    total: Tensor = logit.logsumexp(-1).square().sum()
    return total / max(1, logit.shape[0])


def entropy(routing: Routing, load: Float[Tensor, "E"]) -> Float[Tensor, ""]:
    """Mean entropy [nat] of a token's probabilities.

    Raises:
        ValueError: the router gives no probabilities.
    """
    prob = _needed(routing.prob, "entropy", "probabilities")
    # clamped: the slope of p ln p is infinite at 0, and softmax does reach 0 in float32.
    total: Tensor = -(prob * prob.clamp_min(torch.finfo(prob.dtype).tiny).log()).sum()
    return total / max(1, prob.shape[0])


_GENERIC: Mapping[str, Callable[[Routing, Tensor], Tensor]] = {"balance": balance, "z": z_loss, "entropy": entropy}


class Auxiliary(NamedTuple):
    """Auxiliary losses of one micro-batch.

    Args:
        total: weighted sum over losses and sites, to be added to the token loss.
        means: mean over sites of each loss, before its weight.
        weights: mean weight in force of each loss; of those at 0, only the ones that the training names.
        per_site: the losses of each site, before their weights.
    """

    total: Tensor
    means: dict[str, float]
    weights: dict[str, float]
    per_site: list[dict[str, float]]


def auxiliary(
    sites: tuple[Site, ...],
    routers: Sequence[Router],
    token_loss: Float[Tensor, "T"],
    context: RouteContext,
    rules: LossRules | None = None,
) -> Auxiliary:
    """All auxiliary losses that routers and training ask for; one whose weight is 0 is left out.

    Args:
        routers: the router of each site.
        token_loss: cross-entropy of every routed token, NaN where it has no target; routers see it detached.
        context: what the routers knew of the tokens, as in `Output.context`.
        rules: of the step, which count this micro-batch in; None leaves all to the routers.

    Raises:
        ValueError: a loss that nobody defines has a weight.
    """
    rules = rules or LossRules()
    total = token_loss.new_zeros(())
    per_site: list[dict[str, float]] = []
    weights: dict[str, list[float]] = {}
    loads = rules.loads([site.routing for site in sites])
    for site, router, load in zip(sites, routers, loads, strict=True):
        values: dict[str, float] = {}
        place = context.at(layer=site.layer, iteration=site.iteration)
        own = router.losses(site.routing, load, token_loss.detach(), place)
        for name, weight in rules.weights_of(router).items():
            if name not in own and name not in _GENERIC:
                raise ValueError(
                    f"router {site.router} has a weight for loss {name!r}, which neither it nor the trainer "
                    f"defines; the trainer knows {', '.join(_GENERIC)}"
                )
            if weight or name in rules.weights or name in rules.factors:
                weights.setdefault(name, []).append(weight)
            if weight == 0:
                continue
            value = own[name] if name in own else _GENERIC[name](site.routing, load)
            total = total + weight * value
            values[name] = float(value.detach())
        per_site.append(values)
    given = {name: [values[name] for values in per_site if name in values] for name in weights}
    means = {name: fmean(values) for name, values in given.items() if values}
    return Auxiliary(total, means, {name: fmean(own) for name, own in weights.items()}, per_site)


def check_losses(
    weights: Collection[str], scheduled: Collection[str], routers: Sequence[Router], router_name: str
) -> None:
    """Nothing, if every loss that the training names is defined, and those with a schedule have a weight.

    Args:
        weights: names in the training's `aux_weights`.
        scheduled: names in its `aux_schedule`.
        routers: of the model; one without experts has none, and no losses to name wrongly.

    Raises:
        ValueError: a name that neither the routers nor the trainer define, or a schedule without a weight.
    """
    if not routers:
        return
    asked = list(dict.fromkeys(name for router in routers for name in router.loss_weights))
    known = list(dict.fromkeys((*asked, *_GENERIC)))
    for name in [*weights, *scheduled]:
        if name not in known:
            raise ValueError(
                f"there is no auxiliary loss {name!r}{did_you_mean(name, known)}; "
                f"router {router_name} and the trainer know {', '.join(known)}"
            )
    for name in scheduled:
        if name not in asked and name not in weights:
            raise ValueError(
                f"aux_schedule names loss {name!r}, which has no weight with router {router_name}; "
                f"give it one in aux_weights, or leave the schedule out"
            )


def _needed(value: Tensor | None, loss: str, what: str) -> Tensor:
    if value is None:
        raise ValueError(f"the {loss} loss needs {what}, and this router gives none; set its weight to 0")
    return value
