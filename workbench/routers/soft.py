"""Soft MoE: experts work on mixtures of all tokens of a sequence (Puigcerver et al., 2023)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.mixture import SlotRouting
from workbench.core.router import Card, Router
from workbench.core.routing import Routing

__all__ = ["SoftRouter"]

_EPSILON = 1e-6


class SoftRouter(Router):
    """Every slot of an expert is a mixture of all tokens, and every token a mixture of all slots.

    Nothing is dropped, nothing is chosen and all is smooth. A slot sees every token of its sequence, the
    later ones too, so `generate` refuses it unless it may recompute the whole prefix for every token. Each
    sequence has slots of its own, as each image has in the paper; the mixing takes memory for the tokens of
    the batch times its sequences times the slots.

    Args:
        slots: slots of each expert per sequence. The paper takes as many slots in all as a sequence has
            tokens; how long a text is is not known beforehand, so that the number is ours.

    Source: arXiv 2308.00951, section 2 (algorithm 2, normalised inputs and slots with one learned scale).
    """

    card = Card(
        "From Sparse to Soft Mixtures of Experts",
        arxiv="2308.00951",
        year=2023,
        changes="selection: none; slots mix tokens, tokens mix slots",
        unverified="section and algorithm numbers; the formulas are those of the released code",
    )
    causal = causal_in_training = False
    mixer: Float[Tensor, "D E C"]
    scale: Float[Tensor, ""]

    def __init__(self, width: int, num_experts: int, *, layer: int = 0, slots: int = 8):
        super().__init__(width, num_experts, layer=layer)
        at_least("slots", slots, 1)
        # only directions count: each slot's vector is normalised before it is used.
        self.mixer = nn.Parameter(torch.randn(width, num_experts, slots) * width**-0.5)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The mixtures of tokens in slots and of slots in tokens."""
        with torch.autocast(x.device.type, enabled=False):
            slot = self.scale.float() * _unit(self.mixer.float(), dim=0)
            logit = torch.einsum("td,dec->tec", _unit(x.float(), dim=-1), slot)
        sequence, count = _sequences(len(x), context, x.device)
        combine = logit.flatten(1).softmax(-1).view_as(logit)
        return SlotRouting(
            num_experts=self.num_experts,
            dispatch=_apart(_share_of_sequence(logit, sequence, count), sequence, count),
            combine=_apart(combine, sequence, count),
            prob=combine.sum(-1),
        )


def _unit(x: Tensor, dim: int) -> Tensor:
    return x * (x.square().sum(dim, keepdim=True) + _EPSILON).rsqrt()


def _sequences(tokens: int, context: RouteContext, device: torch.device) -> tuple[Int[Tensor, "T"], int]:
    """The sequence of each token, numbered from 0, and their number; without any, one."""
    if context.sequence is None or tokens == 0:
        return torch.zeros(tokens, dtype=torch.int64, device=device), 1
    names, sequence = context.sequence.unique(return_inverse=True)
    return sequence, len(names)


def _share_of_sequence(logit: Float[Tensor, "T E C"], sequence: Int[Tensor, "T"], count: int) -> Float[Tensor, "T E C"]:
    """The softmax over the tokens of each sequence."""
    where = sequence.view(-1, 1, 1).expand_as(logit)
    start = torch.full((count, *logit.shape[1:]), -torch.inf, device=logit.device)
    # the largest only keeps the exponential finite, and has no part in the result.
    largest = start.scatter_reduce(0, where, logit.detach(), "amax")
    size = (logit - largest[sequence]).exp()
    return size / torch.zeros_like(start).index_add(0, sequence, size)[sequence]


def _apart(mix: Float[Tensor, "T E C"], sequence: Int[Tensor, "T"], count: int) -> Float[Tensor, "T E slots"]:
    """Each sequence's part in slots of its own, zero in those of the others."""
    own = nn.functional.one_hot(sequence, count).to(mix.dtype)
    return torch.einsum("tec,tb->tebc", mix, own).flatten(2)
