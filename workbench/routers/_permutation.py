"""A learned order of the experts, soft at first and hard for good after a number of steps."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from workbench.core.context import RouteContext

__all__ = ["Permutation", "best_assignment", "permutation_entropy", "sinkhorn"]

_EXPONENTS, _ROUNDS = (-3.0, -7.0), (20, 150)
_EPSILON = 1e-6


class Permutation(nn.Module):
    """Lets a router leave a bad labelling of its experts early in training.

    For the first steps of training the matrix is the softened permutation of trained scores, ever harder.
    Then, and always outside training, it is the one permutation that fits the last soft matrix best.
    The state advances in `advance` alone; the published code advances it in forward and keeps the matrix from
    before the optimiser step, here it is the one from after it.

    Args:
        copies: separate orders, one for each tree or selector; 1 is shared.
        steps: optimiser steps until the order is fixed. The paper's runs use 1 to 10 % of all.
        noise: factor of the Gumbel noise on the scores. The paper's runs use 0.

    Source: arXiv 2306.02824, permutation-based local search.
    """

    step: Int[Tensor, ""]
    order: Int[Tensor, "copies E"]

    def __init__(self, num_experts: int, *, copies: int = 1, steps: int, noise: float = 0.0):
        super().__init__()
        self.steps, self.noise = steps, noise
        self.score = nn.Parameter(torch.empty(copies, num_experts, num_experts).uniform_(-0.05, 0.05))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        with torch.no_grad():
            self.register_buffer("order", best_assignment(self.soft()))

    @property
    def temperature(self) -> float:
        """What the scores are divided by; its logarithm falls linearly over the steps [1]."""
        return float(10 ** (_EXPONENTS[0] + (_EXPONENTS[1] - _EXPONENTS[0]) * self._share))

    def forward(self, context: RouteContext) -> Float[Tensor, "copies E E"]:
        """The matrix whose row says where an expert's weight goes."""
        if context.is_training and int(self.step) < self.steps:
            uniform = context.noise(tuple(self.score.shape), draw=1, device=self.score.device) if self.noise else None
            return self.soft(uniform)
        return nn.functional.one_hot(self.order, self.order.shape[1]).float()

    def soft(self, uniform: Float[Tensor, "copies E E"] | None = None) -> Float[Tensor, "copies E E"]:
        """The softened permutation of the present step; its columns sum to 1, its rows only roughly."""
        score = self.score.float()
        if uniform is not None:
            score = score - self.noise * (-uniform.clamp_min(torch.finfo(score.dtype).tiny).log()).log()
        rounds = int(_ROUNDS[0] + (_ROUNDS[1] - _ROUNDS[0]) * self._share)
        return sinkhorn(score / self.temperature, rounds)

    @torch.no_grad()
    def advance(self) -> None:
        """Once per optimiser step: keep the order that fits now, unless it is fixed already."""
        if int(self.step) < self.steps:
            self.order.copy_(best_assignment(self.soft()))
            self.step += 1

    @property
    def _share(self) -> float:
        return min(1.0, int(self.step) / max(self.steps, 1))


def sinkhorn(score: Float[Tensor, "copies E E"], rounds: int) -> Float[Tensor, "copies E E"]:
    """Exp of the scores after dividing by row sums, then column sums, so many times; in log space."""
    # autocast would leave these sums alone, but not the temperature: near 1e-7 half precision overflows.
    with torch.autocast(score.device.type, enabled=False):
        for _ in range(rounds):
            score = score - score.logsumexp(-1, keepdim=True)
            score = score - score.logsumexp(-2, keepdim=True)
        return score.exp()


def permutation_entropy(matrix: Float[Tensor, "copies E E"]) -> Float[Tensor, ""]:
    """Entropy of the entries plus that of the normalised rows, mean over copies [nat]; near 0 for a permutation."""
    rows = matrix / matrix.sum(-1, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
    total = torch.stack([-(part * (part + _EPSILON).log()).sum((-2, -1)) for part in (matrix, rows)])
    return total.sum(0).mean()


def best_assignment(gain: Float[Tensor, "copies E E"]) -> Int[Tensor, "copies E"]:
    """The column of each row in the one-to-one assignment with the largest total gain, for every matrix."""
    found = np.stack([linear_sum_assignment(one.detach().double().cpu().numpy(), maximize=True)[1] for one in gain])
    return torch.from_numpy(found).to(gain.device).view(gain.shape[:2])
