"""A step from 0 to 1 that is smooth inside and exactly flat outside."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["smooth_step"]


def smooth_step(x: Float[Tensor, "..."], width: float) -> Float[Tensor, "..."]:
    """0 below -width/2, 1 above width/2, and between them the cubic that joins both without a kink.

    Outside the gradient is exactly 0: what is pushed there by every token never comes back.

    Source: arXiv 2002.07772, as used by arXiv 2106.03760.
    """
    # the clamp brings both the value and the gradient of the flat parts.
    place = (x / width).clamp(-0.5, 0.5)
    return 0.5 + place * (1.5 - 2 * place.square())
