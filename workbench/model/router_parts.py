"""The parts of a layer that a router brings: itself, its extra experts, and the kind of expert that it needs."""

from dataclasses import dataclass

import torch
from torch import nn

from workbench.core.experts import Experts
from workbench.core.router import Router
from workbench.core.seeds import seed_of
from workbench.core.spec import Spec
from workbench.experts import EXPERTS
from workbench.model.config import ModelConfig
from workbench.routers import ROUTERS

__all__ = ["RouterParts", "misfit", "new_experts", "new_router", "new_shared_part"]


@dataclass(frozen=True, eq=False)
class RouterParts:
    """The routers of one layer, one for each iteration, with what the first brings into the layer.

    Args:
        name: public name of the router.
        routers: the first decides in the first iteration, and so on.
        extras: cheap experts, one module for each kind.
    """

    name: str
    routers: tuple[Router, ...]
    extras: nn.ModuleList

    @property
    def body(self) -> Spec | None:
        """The kind of expert that the router requires; None means the model's."""
        return self.routers[0].expert

    def to(self, device: torch.device) -> "RouterParts":
        """The same, moved."""
        for part in (*self.routers, self.extras):
            part.to(device)
        return self


def new_router(config: ModelConfig, layer: int, seed: int) -> RouterParts:
    """New routers of the model's kind and their extra experts; the global generator is left as it was.

    Raises:
        LookupError: unknown router.
        ValueError: arguments that the router or the number of experts does not allow.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, layer))
        first = _router(config, layer)
        extras = nn.ModuleList(_extra(spec, config.width) for spec in first.extra_experts)
        later = []
        for iteration in range(1, config.iterations):
            torch.manual_seed(seed_of(seed, layer, iteration))
            later.append(_router(config, layer))
    return RouterParts(config.router.name, (first, *later), extras)


def new_experts(config: ModelConfig, body: Spec | None, layer: int, seed: int) -> Experts:
    """New experts of the kind that a router requires, else of the model's; those of the model are left unset."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, layer, -1))
        experts: Experts = (body or Spec("mlp")).build(
            EXPERTS, config.width, config.num_experts, hidden=config.expert_width
        )
    return experts


def new_shared_part(router: Router, device: torch.device, seed: int) -> nn.Module | None:
    """The part that all layers of a router share, or None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, -1))
        part = router.shared_part()
    return None if part is None else part.to(device)


def misfit(router: Spec, needed: Spec | None, present: Spec | None) -> str:
    """What to tell a person whose router needs other experts than the model has."""
    return (
        f"router {router} needs experts of kind {needed or 'mlp'}, and this model has {present or 'mlp'}; "
        "pass rebuild_experts=True to start all its experts anew, or train a new model with this router"
    )


def _router(config: ModelConfig, layer: int) -> Router:
    router: Router = config.router.build(ROUTERS, config.width, config.num_experts, layer=layer)
    return router


def _extra(spec: Spec, width: int) -> Experts:
    arguments = dict(spec.args)
    experts: Experts = Spec(spec.name, arguments).build(EXPERTS, width, arguments.pop("num_experts"))
    return experts
