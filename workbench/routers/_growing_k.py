"""A number of experts per token that grows during training."""

import math
from dataclasses import dataclass
from typing import Literal

from workbench.core.check import one_of, within
from workbench.core.context import RouteContext

__all__ = ["GrowingTopK", "Growth"]

Growth = Literal["linear", "cosine", "exponential"]


@dataclass(frozen=True)
class GrowingTopK:
    """Experts per token, from `low` at the first training step to `high` at the last.

    Halves are rounded to even numbers. Where the number of steps is not known, training uses `high`.

    Args:
        low: at step 0.
        high: at the last step.
        growth: `linear`; `cosine`, slow first; `exponential`, fast first.
        evaluate: outside training.

    Raises:
        ValueError: numbers that the experts do not allow.

    Source: arXiv 2303.01610 and its code.
    """

    low: int
    high: int
    growth: Growth
    evaluate: int

    @classmethod
    def of(
        cls, num_experts: int, *, low: int | None, high: int | None, growth: Growth, evaluate: int | None
    ) -> "GrowingTopK":
        """The same with the defaults filled in: half the experts, all of them, and `high` for evaluation."""
        high = num_experts if high is None else high
        within("max_top_k", high, 1, num_experts, hint="it cannot be more than the experts")
        low = max(1, min(num_experts // 2, high)) if low is None else low
        within("min_top_k", low, 1, high, hint="it is where the growth to max_top_k starts")
        evaluate = high if evaluate is None else evaluate
        within("eval_top_k", evaluate, 1, num_experts, hint="it cannot be more than the experts")
        return cls(low, high, one_of("growth", growth, ("linear", "cosine", "exponential")), evaluate)

    def at(self, context: RouteContext) -> int:
        """Experts per token in this phase and step."""
        if not context.is_training:
            return self.evaluate
        if context.num_steps == 0:
            return self.high
        return min(max(self._rounded(context.step, context.num_steps), self.low), self.high)

    def _rounded(self, step: int, steps: int) -> int:
        span = self.high - self.low
        if self.growth == "linear":
            return round(span * step / steps) + self.low
        if self.growth == "cosine":
            return self.high - round(span * math.cos(math.pi * step / (2 * steps)))
        # 300 stages, and as many as there are steps in a shorter run.
        return self.high - round(span * 0.99 ** (step // max(1, steps // 300)))
