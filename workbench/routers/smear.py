"""SMEAR: one expert per sequence, whose parameters are the mean of all experts' (Muqeeth et al., 2023)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.mixture import MergedRouting
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.routers._gate import Gate

__all__ = ["SmearRouter"]

_LATER = -1e4

Mixture = tuple[Float[Tensor, "G E"], Int[Tensor, "T"], Float[Tensor, "T W"] | None]


class SmearRouter(Router):
    """The parameters of all experts, averaged by the mean probabilities of a sequence's tokens.

    All is smooth, and a token costs one expert, beside one average of the parameters per sequence. As in the
    paper the mean is over the whole sequence and sees later tokens, so `generate` refuses it unless it may
    recompute the whole prefix for every token. With `prefix` it is causal; that form is ours.

    Args:
        prefix: first tokens of a sequence that the mean is over; 0 means all of it. A token among them has
            the mean up to itself, so a prefix of more than 1 costs an average of parameters for each.

    Source: arXiv 2306.03745, section 3.
    """

    card = Card(
        "Soft Merging of Experts with Adaptive Routing",
        arxiv="2306.03745",
        year=2023,
        changes="combination: parameters are averaged, not outputs",
        unverified="all but the idea: whether the mean is of probabilities, as here, or of the router's inputs; "
        "a norm before the router and the dropping of experts in training are left out",
    )

    def __init__(self, width: int, num_experts: int, *, layer: int = 0, prefix: int = 0):
        super().__init__(width, num_experts, layer=layer)
        at_least("prefix", prefix, 0)
        self.prefix = prefix
        self.causal = self.causal_in_training = prefix > 0
        self.gate = Gate(width, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The mixture of each sequence."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        mixture, group, memory = (self._of_beginning if self.prefix else _of_whole)(prob, context)
        return MergedRouting(
            num_experts=self.num_experts, mixture=mixture, group=group, prob=prob, logit=logit, memory=memory
        )

    def _of_beginning(self, prob: Float[Tensor, "T E"], context: RouteContext) -> Mixture:
        """The mean of each token's past as far as it lies in the prefix: an even attention to those places."""
        if context.sequence is None or context.position is None:
            raise ValueError(
                "smear with a prefix reads the places of tokens, and these rows have none (slots, received rows); "
                "use prefix=0"
            )
        query = torch.ones(len(prob), 1, 1, device=prob.device)
        key = query * _LATER * (context.position >= self.prefix).view(-1, 1, 1)
        with torch.autocast(prob.device.type, enabled=False):
            mean, memory = context.attend(prob, query, key)
        place = torch.stack((context.sequence, context.position.clamp_max(self.prefix - 1)))
        groups, group = place.unique(dim=1, return_inverse=True)
        # past the prefix the means of a sequence are one: its first token speaks for the others.
        tokens = torch.arange(len(prob), device=prob.device)
        first = tokens.new_full((groups.shape[1],), len(prob)).scatter_reduce(0, group, tokens, "amin")
        return mean.squeeze(1)[first], group, memory


def _of_whole(prob: Float[Tensor, "T E"], context: RouteContext) -> Mixture:
    """The mean of each sequence; without sequences all tokens are one."""
    sequence = torch.zeros_like(prob[:, 0], dtype=torch.int64) if context.sequence is None else context.sequence
    names, group, counts = sequence.unique(return_inverse=True, return_counts=True)
    total = prob.new_zeros(len(names), prob.shape[1]).index_add(0, group, prob)
    return total / counts.unsqueeze(-1), group, None
