"""BlockFFN: positive scores, normalised; neighbouring tokens learn to share their experts (Song et al., 2025)."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.core.spec import Spec
from workbench.routers._gate import Gate
from workbench.routers._neighbours import chunk_share, disagreement

__all__ = ["BlockFFNRouter"]

_EPSILON = 1e-5
_SLOWEST_RISE, _LARGEST = 1.025, 4.0


class BlockFFNRouter(Router):
    """Every expert with a positive score, weighted by the score over the root mean square of all scores.

    Nothing balances the load: an expert without tokens is allowed. A token may have no expert. There are no
    normalised probabilities, and a bias on a choice would be one on its weight, so it takes none. The experts
    are plain two-layer networks.

    Two losses, means over layers, make the experts of neighbours few: `locality` is how badly a token's
    scores predict the next token's, `chunk` the share of experts that a chunk of tokens is expected to meet.

    Args:
        locality: weight of the locality loss.
        chunk: first weight of the chunk loss. After `steady` steps it follows the loss, every `period`
            steps: down as the loss falls, up by 2.5% or more as it rises, to four times the first at most;
            each new value is approached over a period.
        chunk_tokens: tokens of a chunk; chunks end with their sequence, where the released code's do not.
        sharpness: factor of the scores in the locality loss [1].
        steady: steps with the first weight.
        period: steps between two looks at the chunk loss.

    Source: arXiv 2507.08771, sections 3.2 and 3.3; the slow approach and the limit of four are the code's.
    """

    card = Card(
        "BlockFFN: Towards End-Side Acceleration-Friendly Mixture-of-Experts with Chunk-Level Activation Sparsity",
        arxiv="2507.08771",
        year=2025,
        changes="score: ReLU, then RMSNorm; losses: neighbours share experts; experts: no gate branch",
        unverified="where the paper appeared",
    )
    expert = Spec("swish_mlp")
    causal = causal_in_training = True
    schedule: Float[Tensor, "state"]

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        locality: float = 2e-3,
        chunk: float = 5e-2,
        chunk_tokens: int = 64,
        sharpness: float = 100.0,
        steady: int = 1000,
        period: int = 100,
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("locality", locality, 0)
        at_least("chunk", chunk, 0)
        at_least("chunk_tokens", chunk_tokens, 1)
        at_least("sharpness", sharpness, 0)
        at_least("steady", steady, 0)
        at_least("period", period, 1)
        self.locality, self.chunk = locality, chunk
        self.chunk_tokens, self.sharpness = chunk_tokens, sharpness
        self.steady, self.period = steady, period
        self.gate = Gate(width, num_experts)
        self.scale = nn.Parameter(torch.ones(num_experts))
        # steps done; the chunk weight at the last look and at the next; the loss summed since and before that.
        self.register_buffer("schedule", torch.tensor([0, chunk, chunk, 0, 0]))

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The locality loss, and the chunk loss with the weight it has reached."""
        steps, start, goal, _, _ = self.schedule.tolist()
        reached = start + (goal - start) * (steps % self.period) / self.period
        return {"locality": self.locality, "chunk": reached}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """Every expert with a positive score."""
        logit = self.gate(x)
        return SparseRouting.from_mask(logit > 0, _normalised(logit) * self.scale.float(), logit=logit)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """This layer's part of both losses, whose sums over layers are the paper's means."""
        assert routing.logit is not None
        score = _normalised(routing.logit)
        share = score / (score.sum(-1, keepdim=True) + _EPSILON)
        locality = disagreement(self.sharpness * routing.logit, context)
        chunk = chunk_share(share, self.chunk_tokens, context)
        return {"locality": locality / context.num_layers, "chunk": chunk / context.num_layers}

    def update(self, tallies: Sequence[Tally]) -> None:
        """Move the chunk weight with the chunk loss of the whole model."""
        steps, start, goal, total, before = self.schedule.tolist()
        steps, total = steps + 1, total + sum(tally.losses.get("chunk", 0.0) for tally in tallies)
        if steps % self.period == 0:
            start = goal
            if steps >= self.steady and before > 0:
                ratio = total / before
                ratio = ratio if ratio <= 1 else max(ratio, _SLOWEST_RISE)
                goal = min(goal * ratio, _LARGEST * self.chunk)
            total, before = 0.0, total
        self.schedule.copy_(torch.tensor([steps, start, goal, total, before]))


def _normalised(logit: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    score = logit.relu()
    return score * (score.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
