"""Losses over neighbouring tokens of a sequence."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.context import RouteContext

__all__ = ["chunk_share", "disagreement", "pairs", "places"]

_EPSILON = 1e-5


def places(tokens: int, context: RouteContext, device: torch.device) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
    """Sequence and position of every token; without either it is one sequence, in the order given."""
    if context.sequence is None or context.position is None:
        return torch.zeros(tokens, dtype=torch.int64, device=device), torch.arange(tokens, device=device)
    return context.sequence, context.position


def pairs(sequence: Int[Tensor, "T"], position: Int[Tensor, "T"]) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """The tokens that have a next one in their sequence, and those next ones."""
    # sorting twice, the second time stably, is sorting by sequence and then by position.
    order = position.argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    here, there = order[:-1], order[1:]
    is_next = (sequence[here] == sequence[there]) & (position[here] + 1 == position[there])
    return here[is_next], there[is_next]


def disagreement(logit: Float[Tensor, "T E"], context: RouteContext) -> Float[Tensor, ""]:
    """Mean cross-entropy [nat] of each token's experts, on or off, as the token before predicts them.

    The gradient reaches both tokens.
    """
    before, after = pairs(*places(len(logit), context, logit.device))
    loss = nn.functional.binary_cross_entropy_with_logits(logit[before], logit[after].sigmoid(), reduction="sum")
    return loss / max(1, len(before) * logit.shape[1])


def chunk_share(share: Float[Tensor, "T E"], chunk_tokens: int, context: RouteContext) -> Float[Tensor, ""]:
    """Mean chance that a chunk of neighbouring tokens meets an expert, if each token drew one by its shares.

    Args:
        chunk_tokens: tokens of a chunk; the last one of a sequence may have fewer.
    """
    sequence, position = places(len(share), context, share.device)
    place = torch.stack((sequence, position // chunk_tokens))
    chunks, chunk = place.unique(dim=1, return_inverse=True)
    missed = share.new_zeros(chunks.shape[1], share.shape[1]).index_add(0, chunk, (1 - share + _EPSILON).log())
    return (1 - missed.exp()).sum() / max(1, missed.numel())
