"""Hash: the expert of a token is fixed by its token id (Roller et al., 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.seeds import hashed
from workbench.core.sparse import SparseRouting

__all__ = ["HashRouter"]


class HashRouter(Router):
    """One expert per vocabulary entry, drawn once; weight 1, nothing is learned and there is no gate.

    The load depends on token frequencies alone, and every layer uses the same table.

    Args:
        table_seed: which random table. ParlAI's is 42.

    Source: arXiv 2106.04426, section 3.2 (random hashing). The balanced table is not offered: its
        construction could not be checked against the paper.
    """

    card = Card(
        "Hash Layers For Large Sparse Models",
        arxiv="2106.04426",
        year=2021,
        changes="selection: a fixed table over token ids",
        unverified="the balanced table, left out for that reason",
    )
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0, table_seed: int = 42):
        super().__init__(width, num_experts, layer=layer)
        self.table_seed = table_seed

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The table's expert of every token."""
        if context.token_id is None:
            raise ValueError(
                "the hash router reads token ids, and these rows are not tokens (slots, received rows); "
                "use a router that reads hidden states"
            )
        expert = (hashed(context.token_id, self.table_seed) % self.num_experts).unsqueeze(-1)
        weight = torch.ones(expert.shape, device=x.device)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts)
