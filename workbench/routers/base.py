"""BASE: in training every expert gets the same number of tokens, by assignment (Lewis et al., 2021)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.core.check import one_of
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.core.spec import Spec
from workbench.routers._assignment import auction, exact
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["BaseRouter"]


class BaseRouter(Router):
    """One expert per token: balanced in training, the best one elsewhere; no loss and nothing dropped.

    The training rule looks at the whole batch and the other does not, so loads differ between them. Where
    the tokens are no multiple of the experts, no expert gets more than the share rounded up, which is ours:
    the released code would lose tokens. In training a bias can only ban: one that is common to an expert's
    tokens never changes a balanced assignment.

    The weight is the sigmoid of the score, and through it alone the scores learn. They are taken from the
    stream before the norm. The experts are residual blocks that start as the identity; they see the layer's
    normed tokens, where the paper's see the stream.

    Args:
        solver: `auction` as in the paper, near the best total; `exact`, slower, the best one.

    Source: arXiv 2103.16716, section 3, and its released code, which mixes alpha f(h) + (1 - alpha) h.
    """

    card = Card(
        "BASE Layers: Simplifying Training of Large, Sparse Models",
        arxiv="2103.16716",
        year=2021,
        changes="selection: a balanced assignment in training; experts: residual blocks behind a sigmoid",
        unverified="the arXiv identifier; introduction and appendix of the paper",
    )
    expert = Spec("residual")
    causal = True
    causal_in_training = False
    steerable = True
    reads_stream = True

    def __init__(
        self, width: int, num_experts: int, *, layer: int = 0, solver: Literal["auction", "exact"] = "auction"
    ):
        super().__init__(width, num_experts, layer=layer)
        self.solver = one_of("solver", solver, ("auction", "exact"))
        self.gate = Gate(width, num_experts)
        nn.init.orthogonal_(self.gate.weight, gain=0.1)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The expert of every token."""
        logit = self.gate(x)
        expert, keep = best(steer(logit, context.bias), 1, may_ban=context.bias is not None)
        if context.is_training:
            expert = self._balanced(logit.detach(), context.bias)
        weight = logit.gather(1, expert).sigmoid()
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, logit=logit)

    def _balanced(self, score: Float[Tensor, "T E"], bias: Float[Tensor, "E"] | None) -> Int[Tensor, "T 1"]:
        free = _free(score, bias).nonzero().flatten()
        if len(free) == 0:
            return torch.zeros(len(score), 1, dtype=torch.int64, device=score.device)
        solve = exact if self.solver == "exact" else auction
        return free[solve(score[:, free])].unsqueeze(-1)


def _free(score: Float[Tensor, "T E"], bias: Float[Tensor, "E"] | None) -> Bool[Tensor, "E"]:
    return torch.ones_like(score[:0].sum(0), dtype=torch.bool) if bias is None else bias > -torch.inf
