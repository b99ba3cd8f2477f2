"""COMET: trees over the experts that harden by themselves, and a search for their order (Ibrahim et al., 2023)."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
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

__all__ = ["CometRouter"]


class CometRouter(Router):
    """A few soft decision trees per token whose leaves are the experts; there is no top-k.

    Ordinary gradients reach every weight. A token runs every expert whose weight is above 0: all of them at
    first, as many as there are trees once every node is hard. A fresh language model therefore pays for all
    experts. With `search_steps` it is the paper's COMET+.

    Args:
        trees: experts per token once hard, at most. The paper's k.
        width_of_step: gate output over which a node goes from right to left [1]; gamma. Ours: the paper tunes
            it for each task, between 0.001 and 10.
        entropy: weight of the leaves' entropy, which hardens the nodes. Ours: tuned in the paper too.
        search_steps: optimiser steps in which the order of experts is learned too; 0 for no search. The
            paper's runs use 1 to 10 % of all steps.
        search: weight of that search's entropy.
        separate_orders: one order for each tree.

    Source: arXiv 2306.02824; equations and numbers from the published code.
    """

    card = Card(
        "COMET: Learning Cardinality Constrained Mixture of Experts with Trees and Local Search",
        arxiv="2306.02824",
        year=2023,
        changes="selection: soft trees that become sparse, and a learned order of experts",
        unverified="the paper's own text, read in its code; both tuned numbers for language models",
    )
    causal = causal_in_training = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        trees: int = 2,
        width_of_step: float = 1.0,
        entropy: float = 0.01,
        search_steps: int = 0,
        search: float = 1e-4,
        separate_orders: bool = False,
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("num_experts", num_experts, 2)
        at_least("trees", trees, 1)
        at_least("width_of_step", width_of_step, 1e-6)
        at_least("entropy", entropy, 0)
        at_least("search_steps", search_steps, 0)
        at_least("search", search, 0)
        self.trees, self.width_of_step = trees, width_of_step
        self.entropy, self.search = entropy, search
        self.nodes = Affine(width, trees * (num_experts - 1), bound=width_of_step / 100)
        self.leaves = Affine(width, trees * num_experts, bound=0.05)
        copies = trees if separate_orders else 1
        self.permutation = Permutation(num_experts, copies=copies, steps=search_steps) if search_steps else None

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Entropy of the leaves and the search's entropy."""
        return {"entropy": self.entropy, "search": 0.0 if self.permutation is None else self.search}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """Every expert that some tree still leads to."""
        left = smooth_step(self.nodes(x), self.width_of_step).view(len(x), self.trees, self.num_experts - 1)
        leaf = torch.stack(_leaves(left, 0, left.new_ones(left.shape[:-1])), dim=-1)
        logit = self.leaves(x).view_as(leaf) + (leaf + 1e-8).log()
        # one softmax over the leaves of all trees: a tree may count more than another.
        share = logit.masked_fill(leaf <= 0, -torch.inf).flatten(1).softmax(-1).view_as(leaf)
        inputs = {"leaf": leaf}
        if self.permutation is not None:
            inputs["order"] = order = self.permutation(context)
            share = torch.einsum("tge,gef->tgf", share, order.expand(self.trees, -1, -1))
        weight = share.sum(1)
        weight = weight / weight.sum(-1, keepdim=True)
        return SparseRouting.from_mask(weight > 0, weight, prob=weight, loss_inputs=inputs)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """Entropy of the leaves before the experts change places, and of the order while it is soft."""
        leaf = routing.loss_inputs["leaf"]
        entropy = -(leaf * (leaf + 1e-6).log()).sum() / max(1, routing.num_tokens)
        order = routing.loss_inputs.get("order")
        return {"entropy": entropy, "search": leaf.new_zeros(()) if order is None else permutation_entropy(order)}

    def update(self, tallies: Sequence[Tally]) -> None:
        """One more step of the search."""
        if self.permutation is not None:
            self.permutation.advance()


def _leaves(
    left: Float[Tensor, "T trees nodes"], node: int, reach: Float[Tensor, "T trees"]
) -> list[Float[Tensor, "T trees"]]:
    """The probability of every leaf below a node, left to right; the children of node v are 2v+1 and 2v+2."""
    if node >= left.shape[-1]:
        return [reach]
    here = left[..., node]
    return _leaves(left, 2 * node + 1, reach * here) + _leaves(left, 2 * node + 2, reach * (1 - here))
