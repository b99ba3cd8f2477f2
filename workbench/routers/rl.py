"""RL: the router is a policy, and the token's own loss is its reward (RL-R of Clark et al., 2022)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._affine import Affine
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["RLRouter"]


class RLRouter(Router):
    """One expert per token, drawn by chance in training and taught by how well the next token was predicted.

    The expert has weight 1, so the task gives no gradient to the gate; a policy gradient does (REINFORCE):
    where a token did better than a learned guess expected, its expert becomes more likely. Outside training
    the likeliest expert is taken. Slower and noisier than a gate that learns from the task.

    Ours, since the paper's details could not be checked: the weight of 1; the reward, minus the token's
    cross-entropy; rewards set to mean 0 and deviation 1 over the tokens of a micro-batch, so that the guess
    starts right; a gate and a guess that send nothing back into the model; all weights.

    Args:
        policy: weight of the policy gradient.
        value: weight of the squared error of the guess.
        balance: weight of the load-balance loss.
        standardise: rewards with mean 0 and deviation 1; without it they are plain losses with the sign turned.

    Source: arXiv 2202.01169, RL-R.
    """

    card = Card(
        "Unified Scaling Laws for Routed Language Models",
        arxiv="2202.01169",
        year=2022,
        changes="training: a policy gradient with the token's loss as reward",
        unverified="everything but the idea: reward, baseline, exploration, coefficients",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        policy: float = 1.0,
        value: float = 1.0,
        balance: float = 0.01,
        standardise: bool = True,
    ):
        super().__init__(width, num_experts, layer=layer)
        for name, weight in (("policy", policy), ("value", value), ("balance", balance)):
            at_least(name, weight, 0)
        self.policy, self.value, self.balance, self.standardise = policy, value, balance, standardise
        self.gate = Gate(width, num_experts)
        self.guess = Affine(width, 1, bound=0.01)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Policy gradient, error of the guess, balance."""
        return {"policy": self.policy, "value": self.value, "balance": self.balance}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """One expert of every token."""
        logit = self.gate(x.detach())
        ranking = steer(logit, context.bias)
        if context.is_training:
            # the best after Gumbel noise is a draw from the softmax.
            uniform = context.noise(tuple(logit.shape), device=x.device).clamp_min(torch.finfo(logit.dtype).tiny)
            ranking = ranking - (-uniform.log()).log()
        expert, keep = best(ranking, 1, may_ban=context.bias is not None)
        weight = torch.ones(expert.shape, device=x.device)
        return SparseRouting.from_topk(
            expert,
            weight if keep is None else weight * keep,
            keep=keep,
            num_experts=self.num_experts,
            prob=logit.softmax(-1),
            logit=logit,
            loss_inputs={"guess": self.guess(x.detach()).squeeze(-1)},
        )

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """Policy gradient and error of the guess, over the tokens that have a target and an expert."""
        assert isinstance(routing, SparseRouting) and routing.logit is not None
        if token_loss is None:
            return {"policy": load.new_zeros(()), "value": load.new_zeros(())}
        known = token_loss.isfinite()
        known = known if routing.kept is None else known & routing.kept[:, 0]
        reward, guess = -token_loss[known].float(), routing.loss_inputs["guess"][known]
        count = max(1, len(reward))
        if self.standardise:
            centred = reward - reward.sum() / count
            reward = centred / ((centred.square().sum() / count).sqrt() + 1e-6)
        surprise = reward - guess
        chosen = routing.logit.log_softmax(-1).gather(1, routing.expert)[known, 0]
        policy = -(surprise.detach() * chosen).sum() / count
        return {"policy": policy, "value": 0.5 * surprise.square().sum() / count}
