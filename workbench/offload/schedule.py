"""Which tokens are computed together, so that a batch needs few experts: pure functions of what is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from workbench.core.check import at_least

__all__ = ["ExpertBatch", "Queued", "Regrouping", "batch_by_expert", "regroup"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Regrouping:
    """Two batches of equal size, made of the tokens of two others.

    Args:
        order: tokens of the first new batch, then those of the second; each in the order they came in.
        before: distinct experts of the first old batch plus those of the second, over all layers.
        after: of the new ones; never more.
    """

    order: Int[np.ndarray, "T"]
    before: int
    after: int

    @property
    def groups(self) -> tuple[Int[np.ndarray, "H"], Int[np.ndarray, "H"]]:
        """The tokens of each new batch."""
        half = len(self.order) // 2
        return self.order[:half], self.order[half:]

    @property
    def inverse(self) -> Int[np.ndarray, "T"]:
        """Where each token went: puts rows that `order` has moved, as those of a KV cache, back."""
        return np.argsort(self.order)


def regroup(paths: Bool[np.ndarray, "T P"], *, rounds: int = 10) -> Regrouping:
    """Split the tokens of two batches anew, those of similar paths together.

    Two means by Hamming distance, each group held to half of the tokens. If that needs no fewer experts than
    the batches as they came, they stay. Only for routers without a limit per expert: with one, who shares a
    batch changes what is dropped.

    Args:
        paths: whether a token is predicted to use an expert of a layer; the first batch is the first half.
        rounds: of moving tokens, at most.

    Raises:
        ValueError: an odd number of tokens.

    Source: arXiv 2410.17954, token scheduler. How it begins and how it balances is ours: from the first token
        and the one least like it, by who gains most.
    """
    tokens = len(paths)
    if tokens % 2:
        raise ValueError(f"two batches of equal size have an even number of tokens, got {tokens}")
    half = tokens // 2
    unchanged = np.arange(tokens)
    before = _distinct(paths[:half]) + _distinct(paths[half:])
    if half < 2:
        return Regrouping(order=unchanged, before=before, after=before)
    bits = paths.astype(np.float64)
    far = int(np.abs(bits - bits[0]).sum(1).argmax())
    centres = bits[[0, far]]
    order = unchanged
    for _ in range(rounds):
        # the distance to a mean of bits is the mean Hamming distance to those that it is made of.
        distance = np.abs(bits[:, None] - centres).sum(-1)
        # the sort is stable: ties keep the order in which tokens came.
        ranked = np.argsort(distance[:, 0] - distance[:, 1], kind="stable")
        found = np.concatenate([np.sort(ranked[:half]), np.sort(ranked[half:])])
        if np.array_equal(found, order):
            break
        order = found
        centres = np.stack([bits[order[:half]].mean(0), bits[order[half:]].mean(0)])
    after = _distinct(paths[order[:half]]) + _distinct(paths[order[half:]])
    if after >= before:
        return Regrouping(order=unchanged, before=before, after=before)
    return Regrouping(order=order, before=before, after=after)


class Queued(NamedTuple):
    """A token that waits for its expert.

    Args:
        token: whatever tells it from others.
        waited: batches that were formed without it.
    """

    token: int
    waited: int = 0


@dataclass(frozen=True, kw_only=True)
class ExpertBatch:
    """A batch, and who still waits.

    Args:
        chosen: tokens of each expert that the batch uses, experts in the order in which they were taken.
        rest: the queues without them; who is left has waited for one batch more.
    """

    chosen: dict[int, list[Queued]]
    rest: list[list[Queued]]


def batch_by_expert(queues: Sequence[Sequence[Queued]], *, limit: int, most_waited: int | None = None) -> ExpertBatch:
    """The next batch from one queue per expert: the longest queue first, until the limit.

    Inside a queue who came first goes first. Of equally long queues that of the lower expert is taken.

    Args:
        queues: of every expert, who came first in front.
        limit: tokens of a batch.
        most_waited: tokens that have waited for so many batches go before all others, those that waited longest
            first; then come the experts that they need anyway. None lets rare experts wait as long as it takes.

    Raises:
        ValueError: no room for a token.

    Source: arXiv 2410.19123, expert-aware batching, from a description of it (unverified); the age is ours.
    """
    at_least("limit", limit, 1)
    take = _overdue(queues, limit, most_waited)
    room = limit - sum(take)
    by_length = sorted(range(len(queues)), key=lambda expert: (-len(queues[expert]), expert))
    needed = sorted((expert for expert in by_length if take[expert]), key=by_length.index)
    order = [*needed, *(expert for expert in by_length if not take[expert])]
    for expert in order:
        more = min(len(queues[expert]) - take[expert], room)
        take[expert] += more
        room -= more
    return ExpertBatch(
        chosen={expert: list(queues[expert][: take[expert]]) for expert in order if take[expert]},
        rest=[
            [one._replace(waited=one.waited + 1) for one in queue[taken:]]
            for queue, taken in zip(queues, take, strict=True)
        ],
    )


def _overdue(queues: Sequence[Sequence[Queued]], limit: int, most_waited: int | None) -> list[int]:
    """How many tokens at the front of every queue have waited too long, no more than the limit in all."""
    take = [0] * len(queues)
    if most_waited is None:
        return take
    late = [(-one.waited, expert) for expert, queue in enumerate(queues) for one in queue if one.waited >= most_waited]
    for _, expert in sorted(late)[:limit]:
        # of a queue those in front have waited longest.
        take[expert] += 1
    return take


def _distinct(paths: NDArray[np.bool_]) -> int:
    return int(paths.any(0).sum())
