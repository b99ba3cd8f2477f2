"""SMILE: first a node, then a device on it (He et al., 2022)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._capacity import keep_first
from workbench.routers._divide import check_divides, near_square
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["SmileRouter"]


class SmileRouter(Router):
    """One expert per token, chosen in two steps with few weights: a node, and one of its devices.

    Expert `node * devices + device` has the product of both probabilities as its weight; the device gate
    is the same on all nodes. The product is small at first, about 1 / experts, and so is the output.
    Both losses can be even while experts idle: they see nodes and devices apart. The two exchanges of
    tokens, between nodes and inside one, belong to expert parallelism and are not here; what they would
    drop is, in training and evaluation: a node's buffer first, then a device's share of what arrived.
    A later token that arrives enlarges that share, so what training drops depends on later tokens.

    Args:
        nodes: groups of neighbouring experts; it must divide them. None is the largest divisor up to the
            square root, 2 for 8 and 4 for 16 (ours; the paper's nodes hold 8).
        capacity_factor: buffer of each exchange, as a multiple of an even load [1].
        node_balance: weight of the balance loss over nodes; even is 1.
        device_balance: the same over devices, of the tokens that arrived at a node.

    Source: arXiv 2212.05191, section 3. Verified: two steps, two exchanges, an added balance loss.
        The product as weight, both loss weights and the capacity factor are not; no code was released.
    """

    card = Card(
        "SMILE: Scaling Mixture-of-Experts with Efficient Bi-level Routing",
        arxiv="2212.05191",
        year=2022,
        changes="score and selection: a node, then a device",
        unverified="product of gates as weight, loss weights 0.005, capacity factor 2",
    )
    causal = True
    causal_in_training = False
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        nodes: int | None = None,
        capacity_factor: float = 2.0,
        node_balance: float = 0.005,
        device_balance: float = 0.005,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.nodes = near_square(num_experts) if nodes is None else check_divides("nodes", nodes, num_experts)
        at_least("capacity_factor", capacity_factor, 0)
        at_least("node_balance", node_balance, 0)
        at_least("device_balance", device_balance, 0)
        self.capacity_factor = capacity_factor
        self.node_balance, self.device_balance = node_balance, device_balance
        self.node_gate = Gate(width, self.nodes)
        self.device_gate = Gate(width, num_experts // self.nodes)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance over nodes, and over devices."""
        return {"node_balance": self.node_balance, "device_balance": self.device_balance}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best device of the best node, which is the best product of both."""
        node, device = self.node_gate(x), self.device_gate(x)
        logit = (node.unsqueeze(-1) + device.unsqueeze(-2)).flatten(1)
        prob = (node.softmax(-1).unsqueeze(-1) * device.softmax(-1).unsqueeze(-2)).flatten(1)
        expert, keep = best(steer(logit, context.bias), 1, may_ban=context.bias is not None)
        arrived = torch.ones_like(expert, dtype=torch.bool) if keep is None else keep
        if context.phase in ("train", "eval"):
            arrived, keep = self._exchanged(expert, arrived)
        weight = prob.gather(1, expert)
        return SparseRouting.from_topk(
            expert,
            weight if keep is None else weight * keep,
            keep=keep,
            num_experts=self.num_experts,
            prob=prob,
            logit=logit,
            loss_inputs={"arrived": arrived},
        )

    def _exchanged(
        self, expert: Int[Tensor, "T K"], wanted: Bool[Tensor, "T K"]
    ) -> tuple[Bool[Tensor, "T K"], Bool[Tensor, "T K"]]:
        """What arrives at its node, and of that what finds a slot on its device."""
        devices = self.num_experts // self.nodes
        node = expert // devices
        buffer = math.ceil(self.capacity_factor * len(expert) / self.nodes)
        arrived = keep_first(node, self.nodes, buffer, wanted=wanted)
        kept = torch.zeros_like(arrived)
        for place in range(self.nodes):
            here = arrived & (node == place)
            slots = math.ceil(self.capacity_factor * int(here.sum()) / devices)
            kept |= keep_first(expert, self.num_experts, slots, wanted=here)
        return arrived, kept

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """The balance loss over nodes, and over devices."""
        assert isinstance(routing, SparseRouting) and routing.prob is not None
        grid = routing.prob.unflatten(1, (self.nodes, -1))
        expert, arrived = routing.expert[:, 0], routing.loss_inputs["arrived"][:, 0]
        return {
            "node_balance": _balance(expert // grid.shape[2], grid.sum(2)),
            "device_balance": _balance((expert % grid.shape[2])[arrived], grid.sum(1)[arrived]),
        }


def _balance(choice: Int[Tensor, "T"], prob: Float[Tensor, "T G"]) -> Float[Tensor, ""]:
    tokens = max(1, len(choice))
    share = torch.bincount(choice, minlength=prob.shape[1]) / tokens
    return prob.shape[1] * (share * prob.sum(0) / tokens).sum()
