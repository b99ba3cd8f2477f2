"""The feed-forward sublayers: experts behind a router, or one dense MLP; each owns its norm and residual."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.context import RouteContext
from workbench.core.records import Site
from workbench.core.router import Router
from workbench.core.seeds import seed_of
from workbench.experts.mlp import MLPExperts
from workbench.model.config import ModelConfig
from workbench.model.linear import Linear
from workbench.model.norm import RMSNorm
from workbench.routers import ROUTERS

__all__ = ["DenseLayer", "MoELayer", "seeded_router"]


def seeded_router(config: ModelConfig, layer: int, seed: int) -> Router:
    """A new router of the model's kind; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, layer))
        router: Router = config.router.build(ROUTERS, config.width, config.num_experts, layer=layer)
    return router


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)), one expert that every token passes."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up = Linear(width, 2 * hidden)
        self.down = Linear(hidden, width)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """The tokens after the MLP."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        result: Tensor = self.down(F.silu(gate) * up)
        return result


class DenseLayer(nn.Module):
    """stream + mlp(norm(stream)), without experts."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.dense_width)

    def forward(
        self, stream: Float[Tensor, "T D"], context: RouteContext
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        """The stream after the MLP, and no routing."""
        return stream + self.mlp(self.norm(stream)), ()


class MoELayer(nn.Module):
    """stream + experts(norm(stream)), as the router decides, beside a shared expert if there is one.

    Args:
        config: the model's shape.
        layer: index among the MoE layers.
        name: dotted name of this module in the model, for traces.
    """

    router: Router

    def __init__(self, config: ModelConfig, layer: int, *, name: str):
        super().__init__()
        self.layer = layer
        self.name = name
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.router = seeded_router(config, layer, seed=0)
        self.router_name = config.router.name
        self.experts = MLPExperts(config.width, config.num_experts, hidden=config.expert_width)
        self.shared = MLP(config.width, config.shared_width) if config.shared_width else None
        self.shared_gate = Linear(config.width, 1) if config.shared_width and config.shared_gate else None

    def forward(
        self, stream: Float[Tensor, "T D"], context: RouteContext
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        """The stream after the experts, and the decision."""
        x = self.norm(stream)
        routing = self.router(stream if self.router.reads_stream else x, context)
        out = routing.apply(x, self.experts, context)
        if self.shared is not None:
            shared = self.shared(x)
            out = out + (shared if self.shared_gate is None else shared * torch.sigmoid(self.shared_gate(x)))
        site = Site(
            layer=self.layer,
            iteration=context.iteration,
            module=self.name,
            router=self.router_name,
            routing=routing,
        )
        return stream + out, (site,)
