"""Pre-gated: one small router reads the token ids before all layers and decides once (Read-ME, 2024)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._affine import Affine
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["PreGatedRouter"]


class PreGatedRouter(Router):
    """The experts of a token are known before the first layer runs, and are the same in every layer.

    A small causal transformer over token ids, shared by all layers, decides at the lowest layer; the others
    take its decision over. Beside it there is nothing to learn.

    Ours: the chosen probabilities are the weights, so that the shared part learns from the language-model
    loss; the paper instead distils it from a dense model and gives every choice the weight 1. Also ours: the
    balance loss, one value map for all heads, and a token table of its own instead of the first columns of
    the model's.

    Args:
        top_k: experts per token. The paper's code uses 1.
        router_width: width of the small transformer, a multiple of twice `num_heads` [1]. The paper's is
            about 512 beside a model of width 4096.
        num_heads: its attention heads.
        table_size: rows of its token table; a token id beyond it shares the row of its remainder.
        balance: weight of the load-balance loss, which every layer adds.

    Source: arXiv 2410.19123; the network is that of the published code.
    """

    card = Card(
        "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of Experts with System Co-Design",
        arxiv="2410.19123",
        year=2024,
        changes="wiring: one decision for all layers, from token ids",
        unverified="the number of heads; the paper's own text, read in its code",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 1,
        router_width: int = 128,
        num_heads: int = 4,
        table_size: int = 4096,
        balance: float = 0.01,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        at_least("num_heads", num_heads, 1)
        at_least("table_size", table_size, 1)
        at_least("balance", balance, 0)
        if router_width < 1 or router_width % (2 * num_heads):
            raise ValueError(
                f"router_width must be a multiple of 2 * num_heads={2 * num_heads}, got {router_width}; "
                f"use {2 * num_heads * max(1, router_width // (2 * num_heads))} or other heads"
            )
        self.router_width, self.num_heads, self.table_size = router_width, num_heads, table_size
        self.balance = balance

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance."""
        return {"balance": self.balance}

    def shared_part(self) -> nn.Module:
        """The small transformer."""
        return IdReader(self.table_size, self.router_width, self.num_heads, self.num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The decision of the lowest layer, made here if there is none below."""
        memory = None
        if context.previous is not None and context.previous.carry is not None:
            logit: Tensor = context.previous.carry
        else:
            assert context.shared is not None, "the model gives the small transformer"
            logit, memory = context.shared(context)
        prob = logit.softmax(-1)
        expert, keep = best(steer(logit, context.bias), self.top_k, may_ban=context.bias is not None)
        weight = prob.gather(1, expert)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(
            expert,
            weight,
            keep=keep,
            num_experts=self.num_experts,
            prob=prob,
            logit=logit,
            carry=logit,
            memory=memory,
            ahead=best(logit, self.top_k)[0],
        )


class IdReader(nn.Module):
    """One causal transformer block over token ids, in float32: token ids in, a logit per expert out.

    Scores are not divided by the root of the head width, as in the published code.

    Args:
        rows: of the token table.
    """

    def __init__(self, rows: int, width: int, heads: int, num_experts: int):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.table = nn.Parameter(torch.empty(rows, width).normal_(std=0.02))
        self.norms = nn.ParameterList([torch.ones(width) for _ in range(3)])
        self.query, self.key = Gate(width, width), Gate(width, width)
        self.value = Gate(width, self.head_width)
        self.mixed = Gate(width, width)
        self.up, self.down = Gate(width, 4 * width), Gate(4 * width, width)
        self.head = Affine(width, num_experts, bound=0.05)

    def forward(self, context: RouteContext) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T W"]]:
        """Logits, and what attention must remember of these tokens."""
        if context.token_id is None or context.position is None:
            raise ValueError(
                "the pre-gated router reads token ids, and these rows are not tokens (slots, received rows); "
                "use a router that reads hidden states"
            )
        with torch.autocast(self.table.device.type, enabled=False):
            x = self.table.float()[context.token_id % len(self.table)]
            seen = self._normed(x, 0)
            query = _turned(self._by_head(self.query(seen)), context.position) * self.head_width**0.5
            key = _turned(self._by_head(self.key(seen)), context.position)
            mixed, memory = context.attend(self.value(seen), query, key)
            x = x + self.mixed(mixed.flatten(1))
            x = x + self.down(nn.functional.silu(self.up(self._normed(x, 1))))
            return self.head(self._normed(x, 2)), memory

    def _normed(self, x: Float[Tensor, "T W"], which: int) -> Float[Tensor, "T W"]:
        return nn.functional.rms_norm(x, x.shape[-1:], self.norms[which].float(), 1e-6)

    def _by_head(self, x: Float[Tensor, "T W"]) -> Float[Tensor, "T H Q"]:
        return x.view(len(x), self.heads, self.head_width)


def _turned(x: Float[Tensor, "T H Q"], position: Int[Tensor, "T"]) -> Float[Tensor, "T H Q"]:
    """Rotary positions: each pair of columns turned by its own angle per place."""
    half = x.shape[-1] // 2
    speed = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (position.unsqueeze(-1) * speed).unsqueeze(1)
    first, second = x.chunk(2, dim=-1)
    turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
    return torch.cat(turned, dim=-1)
