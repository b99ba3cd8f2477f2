"""LocMoE: a gate without weights, and a loss for experts that are near (Li et al., 2024)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.check import at_least, within
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._capacity import keep_first
from workbench.routers._capacity_bound import smallest_capacity
from workbench.routers._divide import check_divides, near_square
from workbench.routers._select import best, steer

__all__ = ["LocMoERouter"]

_AWAY = 0.1


class LocMoERouter(Router):
    """One expert per token, that of the block of coordinates with the highest mean; nothing to train.

    There are no weights and so no gradient to them: routing learns because the tokens move. Block means
    of a normalised token are small, so the softmax is nearly even and a weight is about 1 / experts.
    Where no mean is positive the ReLU leaves a tie, and the mean before it decides (ours). A width
    that the experts do not divide gets blocks of two lengths, the longer ones first (ours). The level
    above, which picks a domain, is left out, and the experts are the model's, not GELU ones.

    Args:
        nodes: groups of neighbouring experts, one on each pretended node; it must divide them. Sequence s of
            rank r lives on node s + r, modulo the nodes. None is the largest divisor up to the square root.
        balance: weight of the load-balance loss.
        locality: weight of the divergence [nat] of a node's mean probabilities from the local ones: 0.9 evenly
            on its own experts, 0.1 on the others. The paper gives neither the weight nor the 0.1 (ours).
        capacity_factor: slots per expert in training and evaluation as a multiple of an even load [1], and
            never below the paper's bound; None, the default, drops nothing.
        cosine: of a token and its expert, for that bound [1].

    Source: arXiv 2401.13920, sections 3.1 to 3.3.
    """

    card = Card(
        "LocMoE: A Low-overhead MoE for Large Language Model Training",
        arxiv="2401.13920",
        year=2024,
        changes="score: means of blocks; loss: locality; a lower bound on capacity",
        unverified="weight of the locality loss, how its distributions are formed",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        nodes: int | None = None,
        balance: float = 0.01,
        locality: float = 0.01,
        capacity_factor: float | None = None,
        cosine: float = 0.03,
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("width", width, num_experts, hint="every expert reads a block of its own")
        self.nodes = near_square(num_experts) if nodes is None else check_divides("nodes", nodes, num_experts)
        at_least("balance", balance, 0)
        at_least("locality", locality, 0)
        at_least("capacity_factor", 0 if capacity_factor is None else capacity_factor, 0)
        within("cosine", cosine, 0, 1)
        self.balance, self.locality, self.capacity_factor = balance, locality, capacity_factor
        self.fewest_slots = smallest_capacity(width, num_experts, cosine)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance, and locality where there is more than one node."""
        return {"balance": self.balance, "locality": self.locality if self.nodes > 1 else 0.0}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The expert of every token's highest block."""
        blocks = x.float().tensor_split(self.num_experts, dim=-1)
        mean = torch.stack([block.mean(-1) for block in blocks], dim=-1)
        logit = mean.relu()
        prob = logit.softmax(-1)
        expert, keep = best(steer(mean, context.bias), 1, may_ban=context.bias is not None)
        keep = self._limited(expert, keep, context)
        weight = prob.gather(1, expert)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit)

    def _limited(
        self, expert: Int[Tensor, "T K"], keep: Bool[Tensor, "T K"] | None, context: RouteContext
    ) -> Bool[Tensor, "T K"] | None:
        if self.capacity_factor is None or context.phase not in ("train", "eval"):
            return keep
        usual = self.capacity_factor * len(expert) / self.num_experts
        slots = math.ceil(min(max(usual, self.fewest_slots), len(expert)))
        return keep_first(expert, self.num_experts, slots, wanted=keep)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """How far the nodes' mean probabilities are from local ones, averaged over nodes that have tokens."""
        assert routing.prob is not None
        prob, own = routing.prob, self.num_experts // self.nodes
        sequence = torch.zeros(len(prob), dtype=torch.long) if context.sequence is None else context.sequence
        node = (sequence.to(prob.device) + context.data_rank) % self.nodes
        tokens = torch.bincount(node, minlength=self.nodes)
        total = prob.new_zeros(self.nodes, self.num_experts).index_add(0, node, prob)
        current = (total / tokens.clamp_min(1).unsqueeze(-1))[tokens > 0]
        is_own = torch.arange(self.nodes).repeat_interleave(own) == torch.arange(self.nodes).unsqueeze(-1)
        local = torch.where(is_own, (1 - _AWAY) / own, _AWAY / max(1, self.num_experts - own)).to(prob.device)
        divergence = (current * (current.clamp_min(1e-30) / local[tokens > 0]).log()).sum(-1)
        return {"locality": divergence.sum() / max(1, len(divergence))}
