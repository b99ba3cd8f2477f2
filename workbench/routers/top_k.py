"""Top-k: each token takes the experts with its highest scores (Mixtral, OLMoE, Qwen, DeepSeek)."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from workbench_kernels import ChoiceGate, token_choice
from workbench_kernels.token_choice import can_choose

from workbench.core.check import at_least, one_of, within
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, limit_to_groups, steer

__all__ = ["TopKRouter"]

Score = Literal["softmax", "softmax_chosen", "sigmoid"]


class TopKRouter(Router):
    """The best K experts of every token, nothing dropped.

    The forms in use are arguments. Mixtral and Qwen3: the defaults. OLMoE: `renormalise=False`.
    DeepSeek-V2: `renormalise=False, groups=8, groups_kept=3, group_value="max", scale=16`. DeepSeek-V3:
    `score="sigmoid", selection_bias=True, groups=8, groups_kept=4, scale=2.5`.

    Args:
        top_k: experts per token.
        score: `softmax` over all experts; `softmax_chosen`, over the chosen logits only; `sigmoid`, each alone.
        renormalise: divide the chosen scores by their sum.
        groups: equal groups that the experts are split into.
        groups_kept: groups a token may choose from.
        group_value: a group counts by its best score (`max`) or its two best (`top2`).
        selection_bias: add a per-expert buffer to the choice, never to the weight.
        scale: what the weights are multiplied by at the end [1].
        balance: weight of the load-balance loss. Switch's and OLMoE's 0.01.
        z: weight of the router z-loss.

    Raises:
        ValueError: choices, groups and experts that do not fit each other.

    Source: arXiv 2401.04088 (Mixtral), 2409.02060 (OLMoE), 2412.19437 (DeepSeek-V3, section 2.1.2).
        DeepSeek's own code masks groups with -inf, as here; the first Hugging Face ports used 0.
    """

    card = Card(
        "Mixtral of Experts",
        arxiv="2401.04088",
        year=2024,
        changes="selection: the K best experts of each token",
        unverified="identifiers 2409.02060 (OLMoE) and 2412.19437 (DeepSeek-V3)",
    )
    causal = causal_in_training = True
    steerable = True
    selection_bias: Float[Tensor, "E"] | None

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 2,
        score: Score = "softmax",
        renormalise: bool = True,
        groups: int = 1,
        groups_kept: int = 1,
        group_value: Literal["max", "top2"] = "top2",
        selection_bias: bool = False,
        scale: float = 1.0,
        balance: float = 0.01,
        z: float = 0.0,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        self.score = one_of("score", score, ("softmax", "softmax_chosen", "sigmoid"))
        self.renormalise = renormalise
        self.group_value = one_of("group_value", group_value, ("max", "top2"))
        self.groups, self.groups_kept = _check_groups(groups, groups_kept, num_experts, top_k)
        self.scale = scale
        at_least("balance", balance, 0)
        at_least("z", z, 0)
        self.balance, self.z = balance, z
        self.gate = Gate(width, num_experts)
        self.register_buffer("selection_bias", torch.zeros(num_experts) if selection_bias else None)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance and z-loss."""
        return {"balance": self.balance, "z": self.z}

    def top_k_gate(self) -> ChoiceGate | None:
        """The router as data, unless it chooses among groups or somebody listens to its gate."""
        # once: nn.Module's look-up by attribute takes longer than the choice.
        gate = self.gate
        if self.groups > 1 or gate._forward_hooks or gate._forward_pre_hooks:
            return None
        return ChoiceGate(
            gate.weight, self.top_k, self.score, self.renormalise, self.scale, selection_bias=self.selection_bias
        )

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The K best experts of every token."""
        own = self.top_k_gate() if len(x) == 1 else None
        if own is not None and can_choose(x, own):
            return self._one(x, own, context)
        logit = self.gate(x)
        if self.score == "sigmoid":
            score = logit.sigmoid()
            prob = score / score.sum(-1, keepdim=True)
        else:
            prob = score = logit.softmax(-1)
        # softmax keeps the order of its logits, and a bias on logits is a factor on odds.
        ranking = score if self.score == "sigmoid" or self.groups > 1 else logit
        if self.selection_bias is not None:
            ranking = ranking + self.selection_bias
        ranking = steer(ranking, context.bias)
        if self.groups > 1:
            ranking = limit_to_groups(ranking, self.groups, self.groups_kept, self.group_value)
        expert, keep = best(ranking, self.top_k, may_ban=context.bias is not None)
        weight = self._weight(logit if self.score == "softmax_chosen" else score, expert, keep)
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit)

    def _one(self, x: Float[Tensor, "1 D"], gate: ChoiceGate, context: RouteContext) -> Routing:
        choice = token_choice(x, gate, bias=context.bias)
        return SparseRouting(
            expert=choice.expert,
            weight=choice.weight,
            kept=None if context.bias is None else choice.rank > -torch.inf,
            num_experts=self.num_experts,
            prob=choice.prob,
            logit=choice.logit,
        )

    def _weight(
        self, score: Float[Tensor, "T E"], expert: Int[Tensor, "T K"], keep: Tensor | None
    ) -> Float[Tensor, "T K"]:
        weight = score.gather(1, expert)
        if self.score == "softmax_chosen":
            weight = weight if keep is None else weight.masked_fill(~keep, -torch.inf)
            return weight.softmax(-1).nan_to_num(0) * self.scale
        if keep is not None:
            weight = weight * keep
        if self.renormalise:
            # a token whose every choice is banned has weights that sum to 0.
            weight = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return weight * self.scale


def _check_groups(groups: int, kept: int, num_experts: int, top_k: int) -> tuple[int, int]:
    within("groups", groups, 1, num_experts)
    if num_experts % groups:
        legal = [g for g in range(1, num_experts + 1) if num_experts % g == 0]
        raise ValueError(f"groups must divide num_experts={num_experts}, got {groups}; legal values: {legal}")
    within("groups_kept", kept, 1, groups)
    if kept * (num_experts // groups) < top_k:
        raise ValueError(
            f"groups_kept={kept} of {groups} groups leave {kept * (num_experts // groups)} experts, "
            f"fewer than top_k={top_k}; keep more groups or use a smaller top_k"
        )
    return groups, kept
