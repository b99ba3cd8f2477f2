"""DSelect-k: binary codes of experts that harden by themselves (Hazimeh et al., 2021)."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._affine import Affine
from workbench.routers._permutation import Permutation, permutation_entropy
from workbench.routers._smooth_step import smooth_step

__all__ = ["DSelectKRouter"]

_EPSILON = 1e-6


class DSelectKRouter(Router):
    """A few selectors per token, each a code of soft bits that becomes one expert; there is no top-k.

    Ordinary gradients reach every weight. A token runs every expert whose weight is above 0: all of them at
    first, as many as there are selectors once every bit is hard. A fresh language model therefore pays for
    all experts. The form of the paper without tokens as input (one choice for a whole task) is left out.

    Args:
        selectors: experts per token once hard, at most. The paper's k.
        width_of_step: gate output over which a bit goes from 0 to 1 [1]; gamma. The code's 1.
        entropy: weight of the selectors' entropy, which hardens them. Ours: the paper tunes it for each task.
        reach: weight of the penalty on codes without an expert, where experts are no power of 2. The code
            sums it over the batch; here it is a mean over tokens, so that it does not grow with the batch.
        search_steps: optimiser steps in which the order of experts is learned too; 0 for no search.
        search: weight of that search's entropy.

    Source: arXiv 2106.03760, section 3; numbers from the published code. The entropy is a mean over tokens,
        as in the code of arXiv 2306.02824; the first code summed it over the batch.
    """

    card = Card(
        "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to Multi-Task Learning",
        arxiv="2106.03760",
        year=2021,
        changes="selection: smooth binary codes that become sparse",
        unverified="the identifier; the entropy weight for language models",
    )
    causal = causal_in_training = True
    code: Bool[Tensor, "E bits"]

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        selectors: int = 2,
        width_of_step: float = 1.0,
        entropy: float = 0.01,
        reach: float = 1.0,
        search_steps: int = 0,
        search: float = 1e-4,
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("num_experts", num_experts, 2)
        at_least("selectors", selectors, 1)
        at_least("width_of_step", width_of_step, 1e-6)
        for name, weight in (("entropy", entropy), ("reach", reach), ("search", search)):
            at_least(name, weight, 0)
        at_least("search_steps", search_steps, 0)
        self.selectors, self.width_of_step = selectors, width_of_step
        self.entropy, self.reach, self.search = entropy, reach, search
        bits = math.ceil(math.log2(num_experts))
        place = torch.arange(bits - 1, -1, -1)
        self.register_buffer("code", torch.arange(num_experts).unsqueeze(-1) >> place & 1 == 1, persistent=False)
        self.bits = Affine(width, selectors * bits, bound=width_of_step / 100)
        self.share = Affine(width, selectors, bound=0.05)
        self.permutation = Permutation(num_experts, steps=search_steps) if search_steps else None

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Entropy of the selectors, reach, and the search's entropy."""
        is_full = 2 ** self.code.shape[1] == self.num_experts
        return {
            "entropy": self.entropy,
            "reach": 0.0 if is_full else self.reach,
            "search": 0.0 if self.permutation is None else self.search,
        }

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """Every expert that some selector still leads to."""
        bit = smooth_step(self.bits(x), self.width_of_step).view(len(x), self.selectors, 1, self.code.shape[1])
        selector = torch.where(self.code, bit, 1 - bit).prod(-1)
        share = self.share(x).softmax(-1).unsqueeze(-1)
        inputs = {"selector": selector}
        placed = selector
        if self.permutation is not None:
            inputs["order"] = order = self.permutation(context)
            placed = selector @ order[0]
        weight = (share * placed).sum(1)
        total = weight.sum(-1, keepdim=True)
        # all codes without an expert: no expert at all, and probabilities that say nothing.
        prob = torch.where(total > 0, weight / total.clamp_min(_EPSILON**2), 1 / self.num_experts)
        return SparseRouting.from_mask(weight > 0, weight, prob=prob, loss_inputs=inputs)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """Entropy and reach of the selectors as they are before the experts change places."""
        selector = routing.loss_inputs["selector"]
        tokens = max(1, routing.num_tokens)
        entropy = -(selector * (selector + _EPSILON).log()).sum() / tokens
        reach = (1 / (selector.sum(-1) + _EPSILON)).sum() / tokens
        order = routing.loss_inputs.get("order")
        search = entropy.new_zeros(()) if order is None else permutation_entropy(order)
        return {"entropy": entropy, "reach": reach, "search": search}

    def update(self, tallies: Sequence[Tally]) -> None:
        """One more step of the search."""
        if self.permutation is not None:
            self.permutation.advance()
