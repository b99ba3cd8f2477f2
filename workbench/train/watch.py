"""A shadow router beside a training run: loaded from a checkpoint, or learning from what it sees."""

from pathlib import Path
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.records import Output
from workbench.core.router import Router
from workbench.core.routing import Routing
from workbench.core.spec import Spec
from workbench.model.config import ModelConfig
from workbench.model.shadow import Shadow
from workbench.model.weights import load
from workbench.train.arguments import check_router
from workbench.train.config import TrainConfig
from workbench.train.loss import auxiliary

__all__ = ["Watch", "imitation", "watch_of"]


@final
class Watch:
    """A shadow router and how it learns: from its own auxiliary losses, plus imitation of the active routing.

    The run does not change by one bit: the shadow sees detached hidden states, and its gradients are taken
    apart. It is not part of the run's checkpoints.

    Args:
        shadow: decides beside the active router.
        source: `learning`, or the folder that its fixed weights come from.
        learning_rate: of its own AdamW; the run's by default.
    """

    def __init__(self, shadow: Shadow, source: str, *, learning_rate: float = 3e-3):
        self.shadow, self.source = shadow, source
        learns = [parameter for parameter in shadow.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(learns, lr=learning_rate) if learns and source == "learning" else None
        self.imitation_loss = float("nan")

    @classmethod
    def learning(cls, config: ModelConfig, router: Spec, *, seed: int, learning_rate: float) -> "Watch":
        """A fresh router that learns from the hidden states of the run.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit.
        """
        return cls(Shadow(config, router, seed=seed), "learning", learning_rate=learning_rate)

    @classmethod
    def loaded(cls, config: ModelConfig, folder: Path) -> "Watch":
        """The router of a checkpoint with its weights, which stay as they are.

        Raises:
            FileNotFoundError: no model in the folder.
            ValueError: a model of another width, or another number of layers or experts.
        """
        other = load(folder)
        for name in ("width", "num_experts", "moe_layers"):
            mine, theirs = getattr(config, name), getattr(other.config, name)
            if mine != theirs:
                raise ValueError(
                    f"the shadow must fit the model: {name} is {mine} here and {theirs} in {folder}; "
                    "take a checkpoint of the same shape"
                )
        shadow = Shadow(config, other.config.router)
        shadow.take_over([layer.router for layer in other.moe_layers()], other.shared_part)
        return cls(shadow, str(folder))

    @property
    def kind(self) -> Literal["learning", "loaded"]:
        """Where its weights come from."""
        return "learning" if self.source == "learning" else "loaded"

    def learn(self, output: Output, token_loss: Float[Tensor, "T"], share: float) -> None:
        """Add to its gradients what one micro-batch says; call before the run's own backward.

        Args:
            output: with its sites, and gradients on.
            token_loss: as for `auxiliary`.
            share: part of the step that this batch is.
        """
        if self._optimizer is None:
            return
        assert output.context is not None, "a model says what its routers knew"
        own = tuple(site for site in output.sites if site.is_shadow)
        active = output.active_sites
        routers = [router for router in self.shadow.routers if isinstance(router, Router)]
        loss = auxiliary(own, [routers[site.layer] for site in own], token_loss, output.context).total
        likeness = [imitation(mine.routing, theirs.routing) for mine, theirs in zip(own, active, strict=True)]
        known = [value for value in likeness if value is not None]
        if known:
            loss = loss + torch.stack(known).mean()
            self.imitation_loss = float(torch.stack(known).mean().detach())
        if not loss.requires_grad:
            return
        learns = [p for group in self._optimizer.param_groups for p in group["params"]]
        # the graph is shared with the run where a router reads attention, so only these gradients are asked for.
        found = torch.autograd.grad(loss * share, learns, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(learns, found, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def step(self) -> None:
        """Take one step of its own optimiser."""
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()

    def __repr__(self) -> str:
        return f"Watch({self.shadow.spec}, {self.kind}{'' if self.kind == 'learning' else ' from ' + self.source})"


def watch_of(config: ModelConfig, train: TrainConfig, router: str | Path) -> Watch:
    """The shadow router that a person named: a folder with a checkpoint, else a registered router.

    Raises:
        LookupError: unknown router.
        FileNotFoundError: no model in the folder.
        ValueError: arguments or a checkpoint that do not fit.
    """
    if isinstance(router, Path) or Path(router).is_dir():
        return Watch.loaded(config, Path(router))
    return Watch.learning(config, check_router(Spec.parse(router)), seed=train.seed, learning_rate=train.learning_rate)


def imitation(shadow: Routing, active: Routing) -> Float[Tensor, ""] | None:
    """Cross-entropy [nat/token] of the shadow's probabilities against the shares of the active assignments.

    Extra experts of either router are left out. None where the shadow gives no probabilities.
    """
    if shadow.prob is None or not shadow.prob.requires_grad:
        return None
    flat = active.assignments()
    width = min(shadow.prob.shape[1], active.num_experts)
    target = shadow.prob.new_zeros(active.num_tokens, active.num_experts)
    share = (flat.weight.detach().abs() * flat.kept).to(target.dtype)
    target = target.index_put((flat.token, flat.expert), share, accumulate=True)[:, :width]
    target = target / target.sum(-1, keepdim=True).clamp_min(torch.finfo(target.dtype).tiny)
    log_prob = shadow.prob[:, :width].clamp_min(torch.finfo(target.dtype).tiny).log()
    return -(target * log_prob).sum() / max(1, len(target))
