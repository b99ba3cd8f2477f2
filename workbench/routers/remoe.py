"""ReMoE: every expert with a positive score takes part, and a penalty keeps their number (Wang et al., 2024)."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least, within
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k

__all__ = ["ReMoERouter"]


class ReMoERouter(Router):
    """A number of experts that differs by token and layer, and is top_k on average once the penalty has grown.

    An output passes 0 smoothly, so nothing jumps when an expert joins or leaves a token. A token may have no
    expert, or all: memory peaks in the first steps, when about half of all experts are active. There are no
    normalised probabilities, and a bias on a choice would be one on its weight, so it takes none.

    The penalty's strength is one number for the model: each step multiplies it by `growth` while more than
    top_k experts are active on average over all layers, and divides it otherwise. At the default start about
    80 steps pass before it matters; a short run needs a larger `start`, such as 1e-5.

    Args:
        top_k: experts per token to aim at.
        start: first strength of the penalty.
        growth: factor of the strength per step [1].
        even: weigh the penalty of an expert by its load; without it some experts stay dead.

    Source: arXiv 2412.14711, sections 3.3 and 3.4. The penalty is the paper's mean over layers, where the
        released code sums them; the strength adapts, so that it ends lower there by that factor. At equality
        it falls, as in the code. The gate starts with the code's standard deviation of 0.01.
    """

    card = Card(
        "ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing",
        arxiv="2412.14711",
        year=2024,
        changes="selection: ReLU instead of top-k; loss: an L1 penalty that tunes itself",
    )
    causal = causal_in_training = True
    exponent: Float[Tensor, ""]

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 1,
        start: float = 1e-8,
        growth: float = 1.2,
        even: bool = True,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        within("start", start, 1e-30, 1)
        at_least("growth", growth, 1)
        self.start, self.growth, self.even = start, growth, even
        self.gate = Gate(width, num_experts, std=0.01)
        # a whole number below 257 survives a cast to bfloat16, and the strength itself would not.
        self.register_buffer("exponent", torch.zeros(()))

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The penalty, at the strength it has reached."""
        return {"l1": self.start * self.growth ** int(self.exponent)}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """Every expert with a positive score, weighted by it."""
        logit = self.gate(x)
        weight = logit.relu()
        return SparseRouting.from_mask(weight > 0, weight, logit=logit)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """This layer's part of the penalty, whose sum over layers is the paper's."""
        assert routing.logit is not None
        total = routing.logit.relu().sum(0)
        if self.even:
            total = total * routing.demand * self.num_experts / (self.top_k * max(routing.num_tokens, 1))
        return {"l1": total.sum() / (max(routing.num_tokens, 1) * context.num_layers)}

    def update(self, tallies: Sequence[Tally]) -> None:
        """Strengthen the penalty where more experts are active than top_k on average, else weaken it."""
        active = sum(int(tally.demand.sum()) for tally in tallies)
        wanted = self.top_k * sum(tally.tokens for tally in tallies)
        if wanted:
            self.exponent += math.copysign(1, active - wanted - 0.5)
