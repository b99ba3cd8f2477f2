"""A layer's own experts with the extra ones of its router after them."""

from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.sparse import SparseRouting

__all__ = ["MixedExperts"]


@final
@dataclass(frozen=True)
class MixedExperts:
    """The model's E experts, then a router's extra kinds; a kind without rows is not called.

    It holds no tensors: the layer owns both, so that extra experts come and go with their router.

    Args:
        experts: the model's own.
        extras: one for each extra kind, in the order of `Router.extra_experts`.
    """

    experts: Experts
    extras: tuple[Experts, ...]

    def tensors(self) -> tuple[Any, ...]:
        """The tensors of each kind, the model's own first."""
        return tuple(kind.tensors() for kind in self._kinds())

    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """The sum of what each kind adds for its part of the plan."""
        total = x.new_zeros(x.shape)
        start, counts = 0, plan.counts.tolist()
        for kind, own in zip(self._kinds(), tensors, strict=True):
            end = start + kind.num_experts
            if any(counts[start:end]):
                total = total + kind.run(own, x, plan.slice(start, end), context)
            start = end
        return total

    def __call__(self, x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext) -> Float[Tensor, "T D"]:
        """The same over the experts' own tensors."""
        return self.run(self.tensors(), x, plan, context)

    def _kinds(self) -> tuple[Experts, ...]:
        return (self.experts, *self.extras)
