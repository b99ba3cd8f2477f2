"""What lossy experts cost: how far the predictions on a text are from those with exact experts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.html import facts

__all__ = ["PrecisionLoss", "Predict", "loss_of_precision"]

Predict = Callable[[Int[Tensor, "1 S"]], Float[Tensor, "1 S V"]]
"""Tokens -> logits of every next token."""


@dataclass(frozen=True, kw_only=True)
class PrecisionLoss:
    """Lossy predictions beside exact ones on one text. Measured, and of this text only.

    Args:
        kl: mean KL divergence of the lossy prediction from the exact one [nats/token].
        loss_change: lossy less exact mean loss [nats/token].
        exact_loss: mean loss with exact experts [nats/token].
        same_tokens: share of tokens after which both expect the same next one most [1].
        tokens: predictions that were compared; those of a loss are fewer by one for each window.
    """

    kl: float
    loss_change: float
    exact_loss: float
    same_tokens: float
    tokens: int

    def __str__(self) -> str:
        return f"KL {self.kl:.4g} nats a token, loss {self.loss_change:+.4f} on {self.tokens:,} tokens"

    def _repr_html_(self) -> str:
        rows = {
            "KL from exact experts": f"{self.kl:.4g} nats/token",
            "loss": f"{self.exact_loss + self.loss_change:.4f} nats/token ({self.loss_change:+.4f})",
            "same greedy token": f"{self.same_tokens:.2%}",
        }
        return facts("PrecisionLoss", rows, note=f"measured on {self.tokens:,} tokens of one text")


@torch.no_grad()
def loss_of_precision(lossy: Predict, exact: Predict, token_ids: Sequence[int], *, window: int = 512) -> PrecisionLoss:
    """How far lossy predictions are from exact ones on a text, window after window.

    Args:
        window: tokens that are read together; each begins anew.

    Raises:
        ValueError: fewer than two tokens, or a window of fewer.
    """
    at_least("tokens of a text that a loss is measured on", len(token_ids), 2)
    at_least("window", window, 2)
    kl = before = after = 0.0
    same = tokens = predicted = 0
    for first in range(0, len(token_ids), window):
        ids = torch.tensor([token_ids[first : first + window]])
        ours, theirs = (predict(ids)[0].double().log_softmax(-1).cpu() for predict in (lossy, exact))
        kl += float((theirs.exp() * (theirs - ours)).sum())
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        tokens += ids.shape[1]
        target = ids[0, 1:].unsqueeze(-1)
        after -= float(ours[:-1].gather(-1, target).sum())
        before -= float(theirs[:-1].gather(-1, target).sum())
        predicted += len(target)
    return PrecisionLoss(
        kl=kl / tokens,
        loss_change=(after - before) / predicted,
        exact_loss=before / predicted,
        same_tokens=same / tokens,
        tokens=tokens,
    )
