"""What an expert is good for: the loss with it banned, beside random experts that work as much."""

import random
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.records import ExpertKey
from workbench.live.facts import is_steerable
from workbench.train.forward import forward_batch, training_context
from workbench.train.probe import probe_loss
from workbench.train.trainer import Trainer

__all__ = ["NUM_CONTROLS", "Effect", "measure_expert"]

NUM_CONTROLS = 8
"""Random experts that an effect is compared with."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The loss of the probe text with one expert banned.

    Args:
        load: the expert's share of its layer's assignments on the probe text [1].
        base_loss: with nothing more banned than before [nat/token].
        loss: with it banned [nat/token].
        controls: change of the loss with each of the random experts banned instead [nat/token].
        control_layers: layer of each of those.
        control_experts: expert of each of those.
    """

    layer: int
    expert: int
    step: int
    load: float
    base_loss: float
    loss: float
    controls: tuple[float, ...]
    control_layers: tuple[int, ...]
    control_experts: tuple[int, ...]

    @property
    def change(self) -> float:
        """How much worse the text is predicted without the expert [nat/token]."""
        return self.loss - self.base_loss

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**asdict(self), "change": self.change}

    def __str__(self) -> str:
        mean = f", against {statistics.fmean(self.controls):+.4f} for random ones" if self.controls else ""
        return f"banning expert {self.expert} of layer {self.layer} changes the loss by {self.change:+.4f}{mean}"


@torch.no_grad()
def measure_expert(trainer: Trainer, key: ExpertKey) -> Effect:
    """Ban an expert, and eight random others of the load nearest to its own, one at a time, on the probe text.

    The others come from the sixteen experts, of any layer, whose load is nearest; which eight is drawn with the run's
    seed. Nothing of the run changes.

    Raises:
        ValueError: there is no such expert, or the router cannot be steered.
    """
    model, batch = trainer.model, trainer.batches.probe()
    if not is_steerable(model):
        name = model.config.router.name
        raise ValueError(f"router {name} does not let anybody ban an expert; swap to top_k, for instance")
    layers, experts = len(model.config.moe_layers), model.config.num_experts
    if not (0 <= key.layer < layers and 0 <= key.expert < experts):
        raise ValueError(f"there is no expert {key.expert} in layer {key.layer}: {layers} layers of {experts} experts")
    context = training_context(trainer.config, trainer.step).at(phase="prefill")
    none = torch.zeros(layers, experts, device=model.device) if model.steering is None else model.steering

    def loss_with(bias: Float[Tensor, "L E"]) -> tuple[float, Float[Tensor, "L E"]]:
        output = forward_batch(model, batch, context, trainer.precision, bias=bias)
        loads = torch.zeros(layers, experts)
        for site in output.active_sites:
            loads[site.layer] += site.routing.demand[:experts].cpu()
        return probe_loss(batch, output), loads / loads.sum(-1, keepdim=True).clamp_min(1)

    def without(which: ExpertKey) -> float:
        bias = none.clone()
        bias[which.layer, which.expert] = -torch.inf
        return loss_with(bias)[0]

    base, load = loss_with(none)
    others = _of_similar_load(key, load, seed=trainer.config.seed)
    return Effect(
        layer=key.layer,
        expert=key.expert,
        step=trainer.step,
        load=float(load[key.layer, key.expert]),
        base_loss=base,
        loss=without(key),
        controls=tuple(without(other) - base for other in others),
        control_layers=tuple(other.layer for other in others),
        control_experts=tuple(other.expert for other in others),
    )


def _of_similar_load(key: ExpertKey, load: Float[Tensor, "L E"], *, seed: int) -> list[ExpertKey]:
    own = float(load[key.layer, key.expert])
    every = [ExpertKey(layer, expert) for layer in range(load.shape[0]) for expert in range(load.shape[1])]
    near = sorted((k for k in every if k != key), key=lambda k: (abs(float(load[k.layer, k.expert]) - own), k))
    near = near[: 2 * NUM_CONTROLS]
    return sorted(random.Random(f"{seed} {key.layer} {key.expert}").sample(near, min(NUM_CONTROLS, len(near))))
