"""The feed-forward sublayers: experts behind a router, or one dense MLP; each owns its norm and residual."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.records import Site
from workbench.core.router import Router
from workbench.core.routing import ExpertBody, Routing
from workbench.experts._mixed import MixedExperts
from workbench.model.config import ModelConfig
from workbench.model.linear import Linear
from workbench.model.norm import RMSNorm
from workbench.model.router_parts import RouterParts, new_experts, new_router

__all__ = ["DenseLayer", "MoELayer"]


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

    With `wiring="chain"` the same experts work several times in a row, each time under a router of its
    own: state = norm(stream), then state += experts(state), and the state is the new stream (Chain-of-
    Experts as released: the raw stream is dropped). `chain_stream` adds what the chain added to the
    stream instead.

    Args:
        config: the model's shape.
        layer: index among the MoE layers.
        name: dotted name of this module in the model, for traces.

    Source: arXiv 2506.18945 for the chain; the inner residual is on, as in the released code.
    """

    router: Router
    later_routers: nn.ModuleList
    extra_experts: nn.ModuleList
    experts: Experts

    def __init__(self, config: ModelConfig, layer: int, *, name: str):
        super().__init__()
        self.layer = layer
        self.name = name
        self.wiring = config.wiring
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.install(new_router(config, layer, seed=0))
        self.body = self.router.expert
        self.experts = new_experts(config, self.body, layer, seed=0)
        self.shared = MLP(config.width, config.shared_width) if config.shared_width else None
        self.shared_gate = Linear(config.width, 1) if config.shared_width and config.shared_gate else None

    def install(self, parts: RouterParts) -> None:
        """Put in other routers with their extra experts; the model's own experts stay."""
        self.router, self.later_routers = parts.routers[0], nn.ModuleList(parts.routers[1:])
        self.extra_experts, self.router_name = parts.extras, parts.name

    @property
    def parts(self) -> RouterParts:
        """What `install` put in."""
        return RouterParts(self.router_name, self.routers, self.extra_experts)

    @property
    def routers(self) -> tuple[Router, ...]:
        """The router of every iteration."""
        return (self.router, *self.later_routers)

    @property
    def all_experts(self) -> ExpertBody:
        """The model's experts, then the router's extra ones: what a routing is applied to."""
        return MixedExperts(self.experts, self._extras()) if len(self.extra_experts) else self.experts

    def _extras(self) -> tuple[Experts, ...]:
        return tuple(kind for kind in self.extra_experts if isinstance(kind, Experts))

    def forward(
        self, stream: Float[Tensor, "T D"], context: RouteContext
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        """The stream after the experts, and the decisions."""
        x = state = self.norm(stream)
        sites: tuple[Site, ...] = ()
        for iteration, router in enumerate(self.routers):
            here = context if iteration == 0 else _next_iteration(context, iteration, sites)
            seen = stream if router.reads_stream and iteration == 0 else state
            added, new = self._pass(router, state, seen, here)
            sites += new
            # one pass without a chain adds to the stream itself.
            state = added if self.wiring == "residual" else state + added
        if self.wiring == "chain":
            return state, sites
        return stream + (state if self.wiring == "residual" else state - x), sites

    def _pass(
        self, router: Router, x: Float[Tensor, "T D"], seen: Float[Tensor, "T D"], context: RouteContext
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        routing = router(seen, context)
        out = routing.apply(x, self.all_experts, context)
        if self.shared is not None:
            shared = self.shared(x)
            out = out + (shared if self.shared_gate is None else shared * torch.sigmoid(self.shared_gate(x)))
        sites: tuple[Site, ...] = (self._site(self.router_name, routing, context),)
        if context.watcher is not None:
            watched = context.watcher.decide(seen, context)
            sites += (self._site(context.watcher.name, watched, context, is_shadow=True),)
        return out, sites

    def _site(self, name: str, routing: Routing, context: RouteContext, *, is_shadow: bool = False) -> Site:
        return Site(
            layer=self.layer,
            iteration=context.iteration,
            module=self.name,
            router=name,
            routing=routing,
            is_shadow=is_shadow,
        )


def _next_iteration(context: RouteContext, iteration: int, sites: tuple[Site, ...]) -> RouteContext:
    own = next(site.routing for site in reversed(sites) if not site.is_shadow)
    shadow = next((site.routing for site in reversed(sites) if site.is_shadow), None)
    watcher = None if context.watcher is None else context.watcher.after(shadow)
    return context.at(iteration=iteration, previous=own, watcher=watcher)
