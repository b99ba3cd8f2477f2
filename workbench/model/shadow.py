"""A shadow router: it scores the hidden states that the active router sees, and touches nothing."""

from collections.abc import Sequence
from typing import final

import torch
from torch import nn

from workbench.core.context import Watcher
from workbench.core.routing import Routing
from workbench.core.spec import Spec
from workbench.model.config import ModelConfig
from workbench.model.router_parts import new_router, new_shared_part

__all__ = ["Shadow"]


@final
class Shadow(nn.Module):
    """Routers for all layers of a model, kept apart from it: its optimiser and checkpoints know nothing of them.

    Args:
        config: the shape of the watched model.
        router: the router that watches.
        seed: of its weights.

    Raises:
        LookupError: unknown router.
        ValueError: arguments that do not fit, or a model whose layers run more than once.
    """

    def __init__(self, config: ModelConfig, router: Spec, *, seed: int = 0):
        super().__init__()
        if config.iterations > 1:
            raise ValueError(
                f"a shadow router needs layers that run once, got iterations={config.iterations}; "
                "train the two routers apart and compare their traces"
            )
        own = config.with_router(router)
        parts = [new_router(own, layer, seed) for layer in range(len(config.moe_layers))]
        if not parts:
            raise ValueError("this model has no MoE layer, so there is nothing to watch")
        self.config, self.spec, self.name = own, router, router.name
        self.routers = nn.ModuleList(part.routers[0] for part in parts)
        self.shared_part = new_shared_part(parts[0].routers[0], torch.device("cpu"), seed)

    def take_over(self, routers: Sequence[nn.Module], shared_part: nn.Module | None) -> None:
        """Take the weights of another model's routers, of the same kind and size."""
        for own, other in zip(self.routers, routers, strict=True):
            own.load_state_dict(other.state_dict())
        if self.shared_part is not None and shared_part is not None:
            self.shared_part.load_state_dict(shared_part.state_dict())

    def watcher(self, layer: int, previous: Routing | None) -> Watcher:
        """What one layer is told of it."""
        return Watcher(name=self.name, router=self.routers[layer], shared=self.shared_part, previous=previous)
