"""What the training says of auxiliary losses in one step, beside what the routers ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from workbench.core.router import Router
from workbench.core.routing import Routing
from workbench.train.aux_schedule import parse_schedule
from workbench.train.config import TrainConfig
from workbench.train.global_counts import GlobalCounts, load_of

__all__ = ["LossRules", "step_rules"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossRules:
    """How the auxiliary losses of one step are weighted, and over what their load is counted.

    Args:
        weights: in place of a router's weight of the same name, or beside its own.
        factors: on the weights, by the same names; the others have 1.
        counts: where loads are summed over micro-batches and ranks; None: each micro-batch has its own.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    counts: GlobalCounts | None = None

    def weights_of(self, router: Router) -> dict[str, float]:
        """The weight in force of every loss of a router."""
        asked = {**router.loss_weights, **self.weights}
        return {name: weight * self.factors.get(name, 1.0) for name, weight in asked.items()}

    def loads(self, routings: Sequence[Routing]) -> list[Float[Tensor, "..."]]:
        """The load of every site of one micro-batch, which is counted in; call once for each."""
        demands = [routing.demand for routing in routings]
        return [load_of(demand) for demand in demands] if self.counts is None else self.counts.add(demands)


def step_rules(config: TrainConfig, step: int, group: dist.ProcessGroup | None = None) -> LossRules:
    """The rules of the step with this index, counted from 0; counts begin anew.

    Args:
        group: ranks whose counts a load over the global batch sums.
    """
    # like the learning rate's, a schedule ends at the step with the index num_steps.
    done = step / (config.num_steps or 1)
    factors = {name: parse_schedule(name, text)(done) for name, text in config.aux_schedule.items()}
    counts = GlobalCounts(group) if config.balance_over == "global_batch" else None
    return LossRules(weights=config.aux_weights, factors=factors, counts=counts)
