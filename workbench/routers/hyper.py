"""HyperRouter: a frozen random network writes the gate from one trained vector (Do et al., 2023)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._frozen import FrozenLinear
from workbench.routers._growing_k import GrowingTopK, Growth
from workbench.routers._select import best, steer
from workbench.routers._weights import softmax_over

__all__ = ["HyperRouter"]


class HyperRouter(Router):
    """A gate that learns a little: D numbers per layer move it inside what a random network can write.

    The network reads the trained vector and never the tokens. It starts about 6.7 times sharper than a
    usual gate at D=256, so compare it with a gate of the same size of logits. A single expert per token
    has weight 1 and teaches nothing: use at least 2 in training.

    Args:
        hyper_width: hidden width of the frozen network.
        min_top_k: experts per token at the first step; None is half of the experts.
        max_top_k: at the last step, and in a run whose length is not known; None is all.
        growth: `linear`, `cosine` or `exponential`.
        eval_top_k: outside training; None is `max_top_k`.

    Source: arXiv 2312.07035, section 3, and its code, from which the numbers come. The vector is not
        decayed here (ours): decay would pull the gate towards a random one and not towards 0.
    """

    card = Card(
        "HyperRouter: Towards Efficient Training and Inference of Sparse Mixture of Experts",
        arxiv="2312.07035",
        year=2023,
        changes="gate: written by a frozen random network from a trained vector",
        unverified="the paper's body; rule and numbers are the code's",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        hyper_width: int = 64,
        min_top_k: int | None = None,
        max_top_k: int | None = None,
        growth: Growth = "linear",
        eval_top_k: int | None = None,
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("hyper_width", hyper_width, 1)
        self.top_k = GrowingTopK.of(num_experts, low=min_top_k, high=max_top_k, growth=growth, evaluate=eval_top_k)
        self.embedding = nn.Parameter(torch.randn(width))
        self.inner = FrozenLinear(width, hyper_width)
        self.outer = FrozenLinear(hyper_width, num_experts * (width + 1))

    def written_gate(self) -> tuple[Float[Tensor, "E D"], Float[Tensor, "E"]]:
        """Weight and bias of the gate as they are now."""
        rows = self.outer(self.inner(self.embedding).relu()).view(self.num_experts, self.width + 1)
        return rows[:, :-1], rows[:, -1]

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best experts of every token, as many as the step says."""
        with torch.autocast(x.device.type, enabled=False):
            logit = nn.functional.linear(x.float(), *self.written_gate())
        expert, keep = best(steer(logit, context.bias), self.top_k.at(context), may_ban=context.bias is not None)
        weight = softmax_over(logit, expert, keep)
        return SparseRouting.from_topk(
            expert, weight, keep=keep, num_experts=self.num_experts, prob=logit.softmax(-1), logit=logit
        )
