"""Changing routers while a model trains: try first, then switch; look at the same text; undo and rewind."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch

from workbench.analysis.routing_diff import diff_routings
from workbench.core.context import RouteContext
from workbench.core.routing import Routing
from workbench.core.spec import Spec
from workbench.data.batches import Batches
from workbench.model.transformer import Transformer
from workbench.train.checkpoint import TrainState
from workbench.train.config import TrainConfig
from workbench.train.loss import check_losses
from workbench.train.loss_rules import step_rules
from workbench.train.micro_batch import first_sequence, run_micro_batch
from workbench.train.precision import Precision
from workbench.train.probe import look_at_probe, probe_loss
from workbench.train.snapshot import Snapshot
from workbench.train.swap import RouterBackup, SwapReport, swap_routers

__all__ = ["RouterChanges"]

_MOST_UNDONE = 8
_MOST_START_BYTES = 256 * 2**20


@final
class RouterChanges:
    """Swaps the routers of a model between two steps, and takes a swap back.

    Args:
        model: changed in place.
        optimizer: trains the model.
        batches: give the probe text, and the sequence on which new routers are tried.
        config: of the training.
        precision: of the forward passes.
    """

    def __init__(
        self,
        model: Transformer,
        optimizer: torch.optim.AdamW,
        batches: Batches,
        config: TrainConfig,
        precision: Precision,
    ):
        self._model, self._optimizer, self._config = model, optimizer, config
        self._batches, self._precision = batches, precision
        self._undo: list[tuple[RouterBackup, Snapshot | None]] = []
        self._start: Snapshot | None = None
        optimizer.register_step_pre_hook(lambda *_: self._settle())

    def swap(
        self, router: Spec, state: TrainState, context: RouteContext, *, carry: bool, rebuild_experts: bool
    ) -> SwapReport:
        """Exchange the routers, after a trial on one sequence; a failure leaves the old ones.

        Args:
            state: of the training, to come back to.
            context: of the coming step.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit, or a router that cannot work in this model.
        """
        began = time.perf_counter()
        snapshot = Snapshot(self._model, self._optimizer, state)
        before = self._look(context)
        report, backup = swap_routers(
            self._model,
            self._optimizer,
            self._config,
            router,
            carry=carry,
            rebuild_experts=rebuild_experts,
            trial=lambda: self._try(context),
        )
        after = self._look(context)
        # not before: copying would take a core from the three passes above, which change no weight that it reads.
        snapshot.begin()
        # an older snapshot is let go: each is as large as the training itself.
        self._undo = [(old, None) for old, _ in self._undo[1 - _MOST_UNDONE :]] + [(backup, snapshot)]
        diff = diff_routings(before[0], after[0]).with_losses(before[1], after[1])
        return replace(report, diff=diff, stall_seconds=time.perf_counter() - began)

    @property
    def can_rewind(self) -> bool:
        """Whether the state before the last swap is kept."""
        return bool(self._undo) and self._undo[-1][1] is not None

    def undo(self) -> str:
        """Bring back the router before the last swap, with its optimiser state; experts keep what they learned.

        Raises:
            ValueError: there is nothing to undo.
        """
        backup, _ = self._last("undo")
        after = self._model.config.router
        backup.restore(self._config)
        self._undo.pop()
        return f"{after} -> {backup.router}: the old router is back with its optimiser state; experts as they are now"

    def keep_start(self, state: TrainState) -> None:
        """Before the first step, remember everything for `rewind(to_start=True)`, unless the weights are very large."""
        if state.step > 0:
            return
        size = sum(tensor.numel() * tensor.element_size() for tensor in self._model.state_dict().values())
        if size <= _MOST_START_BYTES:
            self._start = Snapshot(self._model, self._optimizer, state).begin()

    def rewind(self, *, to_start: bool = False) -> TrainState:
        """Everything as it was just before the last swap, or where `keep_start` was called, bit for bit.

        Raises:
            ValueError: there is no such place to go back to.
        """
        snapshot = self._start if to_start else self._last("rewind to")[1]
        if snapshot is None:
            raise ValueError(
                "how this run began is not in memory any more: it was resumed, or its weights are too large to keep "
                "twice; start another one with the same seed"
                if to_start
                else "only the newest swap can be rewound, and it was taken back; "
                "undo goes further, or resume from a checkpoint"
            )
        state = snapshot.restore(self._model, self._optimizer, self._config)
        del self._undo[0 if to_start else -1 :]
        return state

    def _settle(self) -> None:
        for snapshot in (self._start, *(kept for _, kept in self._undo[-1:])):
            if snapshot is not None:
                snapshot.settle()

    def _last(self, what: str) -> tuple[RouterBackup, Snapshot | None]:
        if not self._undo:
            raise ValueError(
                f"there is no router swap to {what}: none was made since this session began; "
                "swap back by name, or resume from a checkpoint"
            )
        return self._undo[-1]

    def _try(self, context: RouteContext) -> None:
        config, model = self._config, self._model
        routers = [router for layer in model.moe_layers() for router in layer.routers]
        check_losses(config.aux_weights, config.aux_schedule, routers, model.config.router.name)
        one = first_sequence(self._batches.batch(context.step * config.micro_batches))
        part, _ = run_micro_batch(model, one, context, self._precision, rules=step_rules(config, context.step))
        if not math.isfinite(part.loss):
            raise ValueError(
                f"on one sequence the new router gives a loss of {part.loss}; the old router stays. Use other arguments"
            )

    def _look(self, context: RouteContext) -> tuple[Sequence[Routing], float]:
        batch, output = look_at_probe(self._model, self._batches, context, self._precision)
        return [site.routing for site in output.sites], probe_loss(batch, output)
