"""Transport plans with few entries: each column keeps its k largest and sums to what it should."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["project", "sparse_plan"]

_MEAN_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_TOLERANCE = 1e-3


def project(x: Float[Tensor, "rows columns"], k: int) -> Float[Tensor, "rows columns"]:
    """Each row's nearest point with at most k entries above 0, which sum to 1; ties keep the lowest index."""
    ranked, index = x.sort(dim=-1, descending=True, stable=True)
    top, index = ranked[:, :k], index[:, :k]
    excess = top.cumsum(-1) - 1
    rank = torch.arange(1, top.shape[1] + 1, device=x.device)
    support = (top * rank > excess).sum(-1, keepdim=True)
    shift = excess.gather(1, support - 1) / support
    return torch.zeros_like(x).scatter(1, index, (top - shift).clamp_min(0))


def sparse_plan(
    similarity: Float[Tensor, "rows columns"],
    row_sum: float,
    column_sum: float,
    k: int,
    *,
    gamma: float = 1.0,
    iterations: int = 20,
    rate: float = 1e-2,
) -> Float[Tensor, "rows columns"]:
    """The plan that is most similar, less half of gamma times its squares, with k entries per column at most.

    Columns have their sums after any number of iterations, rows only where the best plan is unique and
    reached.

    Args:
        iterations: of Adam on the row potentials, from zero; fewer once the row sums are right.
        rate: its learning rate.

    Source: arXiv 2209.15466, semi-dual; the solver is that of the released code.
    """
    potential = torch.zeros_like(similarity[:, :1])
    mean, square = torch.zeros_like(potential), torch.zeros_like(potential)
    for step in range(1, iterations + 1):
        slope = row_sum - _plan(similarity + potential, column_sum, k, gamma).sum(1, keepdim=True)
        mean = _MEAN_DECAY * mean + (1 - _MEAN_DECAY) * slope
        square = _SQUARE_DECAY * square + (1 - _SQUARE_DECAY) * slope.square()
        scale = (square / (1 - _SQUARE_DECAY**step)).sqrt() + _EPSILON
        potential = potential + rate * mean / (1 - _MEAN_DECAY**step) / scale
        if float(slope.norm()) <= _TOLERANCE:
            break
    return _plan(similarity + potential, column_sum, k, gamma)


def _plan(
    value: Float[Tensor, "rows columns"], column_sum: float, k: int, gamma: float
) -> Float[Tensor, "rows columns"]:
    return column_sum * project(value.t() / (gamma * column_sum), k).t()
