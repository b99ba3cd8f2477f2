"""Which experts a person pins, bans or boosts, and the bias that does it."""

import math
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.records import ExpertKey

__all__ = ["PIN", "Steer", "Steering"]

PIN = 1e4
"""What is added to the score of a pinned expert: more than any score, and no NaN when it is added."""


@dataclass(frozen=True)
class Steer:
    """What is done to one expert."""

    kind: Literal["pin", "ban", "bias"]
    bias: float


@final
class Steering:
    """Additions to the choice of experts; weights stay those of the router.

    Args:
        num_layers: MoE layers.
        num_experts: experts of the model in each.
    """

    def __init__(self, num_layers: int, num_experts: int):
        self._shape = (num_layers, num_experts)
        self._steers: dict[ExpertKey, Steer] = {}

    def steer(self, key: ExpertKey, steer: Steer | None) -> Steer | None:
        """Steer an expert, or leave it to the router again; what was done to it before.

        Raises:
            ValueError: there is no such expert, or no other expert would be left in its layer.
        """
        layers, experts = self._shape
        if not (0 <= key.layer < layers and 0 <= key.expert < experts):
            raise ValueError(
                f"there is no expert {key.expert} in layer {key.layer}; layers go from 0 to {layers - 1} and experts "
                f"from 0 to {experts - 1}"
            )
        if steer is not None and steer.kind == "ban" and self._banned(key.layer) | {key.expert} == set(range(experts)):
            raise ValueError(f"all other experts of layer {key.layer} are banned already; take one of those bans back")
        before = self._steers.pop(key, None)
        if steer is not None:
            self._steers[key] = steer
        return before

    def clear(self) -> None:
        """Leave every expert to the router again."""
        self._steers.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """What is steered now; a ban has no number."""
        return [
            {"layer": key.layer, "expert": key.expert, "kind": steer.kind, "bias": _number(steer.bias)}
            for key, steer in sorted(self._steers.items())
        ]

    def bias(self, device: torch.device) -> Float[Tensor, "L E"] | None:
        """The additions as a model takes them; None when nothing is steered."""
        if not self._steers:
            return None
        table = torch.zeros(self._shape)
        for key, steer in self._steers.items():
            table[key.layer, key.expert] = steer.bias
        return table.to(device)

    def _banned(self, layer: int) -> set[int]:
        return {key.expert for key, steer in self._steers.items() if key.layer == layer and steer.kind == "ban"}


def _number(bias: float) -> float | None:
    return bias if math.isfinite(bias) else None
