"""RMoE: a small recurrent state goes up through the layers beside each token (Qiu et al., 2024)."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.check import at_least, one_of
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["RMoERouter"]

Recurrence = Literal["gru", "rnn", "detached", "reset"]


class RMoERouter(Router):
    """The best K experts of a state that remembers the layers below: routers know what was chosen before.

    Every token has a state of its own, nothing passes between positions. Each layer projects its tokens with
    a matrix of its own; one recurrent cell is shared by all layers; the state's gate chooses.

    Args:
        top_k: experts per token. The paper uses 2 of 16, and 4 of 16 in its large models.
        state_width: width of the state [1].
        recurrence: `gru`; `rnn`, a plain tanh cell; `detached`, a GRU that stops the gradient from layer to layer;
            `reset`, a GRU that starts from 0 in every layer (the paper's NP), the same number of parameters.
        balance: weight of the load-balance loss of each layer. The published code pools the layers and its
            value is `top_k` times larger.
        z: weight of the router z-loss.

    Source: arXiv 2408.06793; equations from the published code, which leaves its weights unset: here normal
        with 0.02, biases 0. State width and balance are those of the paper's experiments, not the code's 256
        and 0.001. The cell runs in float32.
    """

    card = Card(
        "Layerwise Recurrent Router for Mixture-of-Experts",
        arxiv="2408.06793",
        year=2024,
        changes="score: a recurrent state over layers",
        unverified="the paper's tables, known from a reading note",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 2,
        state_width: int = 128,
        recurrence: Recurrence = "gru",
        balance: float = 0.01,
        z: float = 0.0,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        at_least("state_width", state_width, 1)
        self.state_width = state_width
        self.recurrence = one_of("recurrence", recurrence, ("gru", "rnn", "detached", "reset"))
        at_least("balance", balance, 0)
        at_least("z", z, 0)
        self.balance, self.z = balance, z
        self.projector = Gate(width, state_width)
        self.gate = Gate(state_width, num_experts)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance and z-loss."""
        return {"balance": self.balance, "z": self.z}

    def shared_part(self) -> nn.Module:
        """The recurrent cell of all layers."""
        return Cell(self.state_width, is_gated=self.recurrence != "rnn")

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best K experts of every token's new state."""
        assert context.shared is not None, "the model gives the cell"
        state: Tensor = context.shared(self.projector(x), self._below(x, context))
        logit = self.gate(state)
        prob = logit.softmax(-1)
        expert, keep = best(steer(logit, context.bias), self.top_k, may_ban=context.bias is not None)
        weight = prob.gather(1, expert)
        weight = weight if keep is None else weight * keep
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return SparseRouting.from_topk(
            expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit, carry=state
        )

    def _below(self, x: Float[Tensor, "T D"], context: RouteContext) -> Float[Tensor, "T W"]:
        if context.previous is None or context.previous.carry is None or self.recurrence == "reset":
            return x.new_zeros(len(x), self.state_width, dtype=torch.float32)
        state: Tensor = context.previous.carry
        return state.detach() if self.recurrence == "detached" else state


class Cell(nn.Module):
    """One recurrent cell in float32, a GRU or a plain tanh cell; a new state of every token from its old one.

    Args:
        is_gated: a GRU, with reset, update and candidate stacked in that order.
    """

    def __init__(self, width: int, *, is_gated: bool):
        super().__init__()
        self.is_gated = is_gated
        rows = 3 * width if is_gated else width
        self.from_input = nn.Parameter(torch.empty(rows, width))
        self.from_state = nn.Parameter(torch.empty(rows, width))
        self.input_bias = nn.Parameter(torch.zeros(rows))
        self.state_bias = nn.Parameter(torch.zeros(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew; biases are 0."""
        for matrix in (self.from_input, self.from_state):
            nn.init.normal_(matrix, std=0.02)
        for bias in (self.input_bias, self.state_bias):
            nn.init.zeros_(bias)

    def forward(self, x: Float[Tensor, "T W"], state: Float[Tensor, "T W"]) -> Float[Tensor, "T W"]:
        """The new state."""
        step = torch.gru_cell if self.is_gated else torch.rnn_tanh_cell
        weights = (self.from_input, self.from_state, self.input_bias, self.state_bias)
        with torch.autocast(x.device.type, enabled=False):
            new: Tensor = step(x.float(), state.float(), *(weight.float() for weight in weights))
        return new
