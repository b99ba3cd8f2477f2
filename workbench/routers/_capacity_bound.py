"""The smallest capacity that LocMoE's theory allows."""

import math

import torch

from workbench.core.check import at_least, within

__all__ = ["chance_of_cosine", "smallest_capacity"]


def chance_of_cosine(width: int, cosine: float) -> float:
    """Chance that a random direction in D dimensions is within this cosine of a given line, on either side [1].

    Args:
        cosine: between 0, where it is certain, and 1.

    Source: arXiv 2401.13920, section 3: 1 - I(cosine^2; 1/2, (D - 1) / 2), as an integral over angles.
    """
    at_least("width", width, 2)
    within("cosine", cosine, 0, 1)
    return _cap(width, cosine) / _cap(width, 0.0)


def _cap(width: int, cosine: float) -> float:
    """Integral of cos(angle)^(D - 2) from the angle whose sine is the cosine to a right angle."""
    angle = torch.linspace(math.asin(cosine), math.pi / 2, 20_001, dtype=torch.float64)
    return float(torch.trapezoid(angle.cos().clamp_min(0) ** (width - 2), angle))


def smallest_capacity(width: int, num_experts: int, cosine: float) -> float:
    """Tokens that an expert needs so that one of them is about what the expert is about.

    A diagnostic: it takes tokens for random directions, and grows without measure once the cosine is
    well above `width ** -0.5`.

    Args:
        cosine: of a token and its expert from which on the token counts; the paper measures about 0.03.

    Returns:
        Tokens per expert; infinite where the chance is too small for a float.

    Source: arXiv 2401.13920, section 3 and appendix.
    """
    at_least("num_experts", num_experts, 1)
    chance = num_experts * chance_of_cosine(width, cosine)
    return 1 / chance if chance else math.inf
