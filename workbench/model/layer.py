"""The feed-forward sublayers: experts behind a router, or one dense MLP; each owns its norm and residual."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.records import Site
from workbench.core.router import Router
from workbench.core.routing import ExpertBody
from workbench.core.seeds import seed_of
from workbench.core.spec import Spec
from workbench.experts import EXPERTS
from workbench.experts._mixed import MixedExperts
from workbench.model.config import ModelConfig
from workbench.model.linear import Linear
from workbench.model.norm import RMSNorm
from workbench.routers import ROUTERS

__all__ = ["DenseLayer", "MoELayer", "RouterParts", "seeded_experts", "seeded_router"]


@dataclass(frozen=True, eq=False)
class RouterParts:
    """A router with what it brings into its layer.

    Args:
        extras: its cheap experts, one module for each kind.
        body: the kind of expert that it requires; None means the model's.
    """

    router: Router
    extras: nn.ModuleList
    body: Spec | None


def seeded_router(config: ModelConfig, layer: int, seed: int) -> RouterParts:
    """A new router of the model's kind and its extra experts; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, layer))
        router: Router = config.router.build(ROUTERS, config.width, config.num_experts, layer=layer)
        extras = nn.ModuleList(_extra(spec, config.width) for spec in router.extra_experts)
    return RouterParts(router, extras, router.expert)


def seeded_experts(config: ModelConfig, body: Spec | None, layer: int, seed: int) -> Experts:
    """New experts of the kind that a router requires, else of the model's; SwiGLU weights are left unset."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, layer, 1))
        experts: Experts = (body or Spec("mlp")).build(
            EXPERTS, config.width, config.num_experts, hidden=config.expert_width
        )
    return experts


def _extra(spec: Spec, width: int) -> Experts:
    arguments = dict(spec.args)
    count = arguments.pop("num_experts")
    experts: Experts = Spec(spec.name, arguments).build(EXPERTS, width, count)
    return experts


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
    experts: Experts
    extra_experts: nn.ModuleList

    def __init__(self, config: ModelConfig, layer: int, *, name: str):
        super().__init__()
        self.layer = layer
        self.name = name
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.install(seeded_router(config, layer, seed=0), config.router.name)
        self.body = self.router.expert
        self.experts = seeded_experts(config, self.body, layer, seed=0)
        self.shared = MLP(config.width, config.shared_width) if config.shared_width else None
        self.shared_gate = Linear(config.width, 1) if config.shared_width and config.shared_gate else None

    def install(self, parts: RouterParts, name: str) -> None:
        """Put in another router with its extra experts; the model's own experts stay.

        Args:
            name: its public name.
        """
        self.router, self.extra_experts, self.router_name = parts.router, parts.extras, name

    @property
    def all_experts(self) -> ExpertBody:
        """The model's experts, then the router's extra ones: what a routing is applied to."""
        return MixedExperts(self.experts, tuple(self.extra_experts)) if len(self.extra_experts) else self.experts

    def forward(
        self, stream: Float[Tensor, "T D"], context: RouteContext
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        """The stream after the experts, and the decision."""
        x = self.norm(stream)
        routing = self.router(stream if self.router.reads_stream else x, context)
        out = routing.apply(x, self.all_experts, context)
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
