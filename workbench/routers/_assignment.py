"""Balanced assignment: one expert per token, no expert with more than its even share, the total score large."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["auction", "exact"]

_BIDDING_ROUNDS = 100
_STEPS, _SMALLEST_STEP = 50, 1e-4


def exact(score: Float[Tensor, "T E"]) -> Int[Tensor, "T"]:
    """The assignment with the largest total, in which no expert has more than ceil(T / E) tokens.

    Every token starts at its best expert. While an expert has too many, one token moves along each step of
    the cheapest path from such an expert to one with room: every total on the way is the best for its counts.
    """
    tokens, experts = score.shape
    limit = math.ceil(tokens / experts)
    value = _finite(score).double().cpu().numpy()
    owner = value.argmax(axis=1) if tokens else np.zeros(0, dtype=np.int64)
    count = np.bincount(owner, minlength=experts)
    price, first = np.full((experts, experts), np.inf), np.zeros((experts, experts), dtype=np.int64)
    _price_moves(range(experts), value, owner, price, first)
    while count.max() > limit:
        path = _cheapest_path(price, count > limit, count < limit)
        moving = [first[here, there] for here, there in itertools.pairwise(path)]
        owner[moving] = path[1:]
        count[path[0]] -= 1
        count[path[-1]] += 1
        _price_moves(path, value, owner, price, first)
    return torch.from_numpy(owner).to(score.device)


def _price_moves(changed: Sequence[int], value: np.ndarray, owner: np.ndarray, price: np.ndarray, first: np.ndarray):
    """What the cheapest move of a token from each changed expert to each other one costs, and which token moves."""
    for expert in changed:
        (members,) = np.nonzero(owner == expert)
        if len(members) == 0:
            price[expert] = np.inf
            continue
        lost = value[members, expert, None] - value[members]
        best = lost.argmin(axis=0)
        price[expert], first[expert] = lost[best, np.arange(len(best))], members[best]


def _cheapest_path(price: np.ndarray, is_source: np.ndarray, is_goal: np.ndarray) -> list[int]:
    """Experts along the cheapest path from any source to any goal; prices may be negative, cycles never are."""
    cost, before = np.where(is_source, 0.0, np.inf), np.full(len(price), -1)
    for _ in range(len(price) - 1):
        through = cost[:, None] + price
        nearest = through.argmin(axis=0)
        found = through[nearest, np.arange(len(price))]
        # a gain of rounding alone could close a cycle.
        is_better = found < cost - 1e-12 * (1 + np.abs(found))
        if not is_better.any():
            break
        cost, before = np.where(is_better, found, cost), np.where(is_better, nearest, before)
    path = [int(np.where(is_goal, cost, np.inf).argmin())]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return path[::-1]


def auction(score: Float[Tensor, "T E"]) -> Int[Tensor, "T"]:
    """A balanced assignment with nearly the largest total, in a few rounds over the whole matrix.

    Experts bid for tokens until each token is on one expert's list. After 100 rounds it ends fast and
    further from the best. Where T is not a multiple of E, tokens that no expert prefers fill it up.

    Source: the released code of arXiv 2103.16716.
    """
    tokens, experts = score.shape
    if experts == 1 or tokens == 0:
        return torch.zeros(tokens, dtype=torch.int64, device=score.device)
    share = math.ceil(tokens / experts)
    finite = _finite(score).float()
    # from 0 upwards: beside a large common offset a bid would be lost to rounding.
    worth = (finite - finite.min()).t()
    worth = torch.nn.functional.pad(worth, (0, share * experts - tokens)).contiguous()
    step = float((worth.max() / _STEPS).clamp_min(_SMALLEST_STEP))
    value, price, held = worth.clone(), torch.zeros_like(worth[0]), torch.zeros_like(worth, dtype=torch.bool)
    rounds = 0
    while True:
        # sort is stable: ties keep token order, so replays are identical.
        ranked, order = value.sort(dim=-1, descending=True, stable=True)
        listed = order[:, :share]
        if int(torch.bincount(listed.flatten(), minlength=len(price)).min()):
            break
        bid = torch.zeros_like(value).scatter(1, listed, ranked[:, :share] - ranked[:, share, None] + step)
        is_bidding = rounds < _BIDDING_ROUNDS
        bid = bid.masked_fill(held, step) if is_bidding else bid
        highest, winner = bid.max(dim=0)
        price = price + highest
        held = torch.zeros_like(held).scatter(0, winner.unsqueeze(0), (highest > 0).unsqueeze(0))
        value = torch.where(held, worth.max() if is_bidding else worth, worth - price)
        rounds += 1
    owner = torch.empty_like(listed.flatten())
    owner[listed.flatten()] = torch.arange(experts, device=score.device).repeat_interleave(share)
    return owner[:tokens]


def _finite(score: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    """The scores with what is not finite replaced by the smallest that is."""
    is_finite = score.isfinite()
    if bool(is_finite.all()):
        return score
    lowest = score[is_finite].min() if bool(is_finite.any()) else score.new_zeros(())
    return torch.where(is_finite, score, lowest)
