"""From a router's logits to the probabilities that a trace keeps."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.model.host.seam import Decision

__all__ = ["probability", "score_of"]

_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logit: logit.softmax(-1),
    "sigmoid": lambda logit: logit.sigmoid(),
}
_CLOSE: Mapping[torch.dtype, float] = {torch.float64: 1e-6, torch.float32: 1e-3}
_CLOSE_IN_HALF = 2e-2


def score_of(decision: Decision) -> str | None:
    """The function of the logits that explains a router's weights, up to a factor; None if none does, or two do."""
    if decision.logit is None:
        return None
    far = {name: _distance(score(decision.logit), decision) for name, score in _SCORES.items()}
    best, second = sorted(far, key=lambda name: far[name])
    limit = _CLOSE.get(decision.weight.dtype, _CLOSE_IN_HALF)
    return best if far[best] <= limit and far[best] <= far[second] / 4 and far[second] > 0 else None


def probability(logit: Float[Tensor, "T E"], score: str) -> Float[Tensor, "T E"]:
    """The scores as shares of one, in float32."""
    value = _SCORES[score](logit.float())
    return value / value.sum(-1, keepdim=True)


def _distance(score: Tensor, decision: Decision) -> float:
    """How far the weights are from the scores of the chosen: as shares of a token, or by one factor for all."""
    chosen, weight = score.gather(1, decision.expert.long()).double(), decision.weight.double()
    factor = weight / chosen
    by_factor = float((factor / factor.mean() - 1).abs().max())
    if weight.shape[1] == 1:
        return by_factor
    shares = chosen / chosen.sum(-1, keepdim=True)
    by_share = float((weight / weight.sum(-1, keepdim=True) / shares - 1).abs().max())
    return min(by_factor, by_share)
