"""The training loop: a generator of one report per optimiser step."""

import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import fmean
from typing import Any, final

from torch.distributed import ProcessGroup

from workbench.core.check import at_least
from workbench.core.records import StepReport
from workbench.core.spec import Spec
from workbench.data.batches import Batches
from workbench.model.transformer import Transformer
from workbench.trace.record import Recorder
from workbench.train.checkpoint import CheckpointError, TrainState, forget_after, load_optimizer, save_checkpoint
from workbench.train.config import TrainConfig
from workbench.train.evaluate import evaluate_domains
from workbench.train.finite import NonFiniteLossError, check_finite
from workbench.train.forward import training_context
from workbench.train.interrupts import interrupts_held
from workbench.train.loss_rules import LossRules, step_rules
from workbench.train.micro_batch import MicroBatch, run_micro_batch, tally
from workbench.train.optim import build_optimizer, clip_gradients, set_learning_rate
from workbench.train.precision import precision_of
from workbench.train.probe import record_probe
from workbench.train.router_changes import RouterChanges
from workbench.train.schedule import learning_rate
from workbench.train.step_report import control_event, step_report
from workbench.train.swap import SwapReport
from workbench.train.watch import Watch

__all__ = ["Trainer"]


@final
class Trainer:
    """Trains a model on batches; `run` yields a report after every step, so it can be stopped and plotted.

    Args:
        model: changed in place.
        batches: a pure function of the batch index, so that a resumed run sees the same data.
        config: how to train.
        folder: where checkpoints go; None keeps none.
        recorder: takes the routings of every step; None records nothing.
        group: ranks whose counts a load over the global batch sums; gradients are not averaged over it.

    Attributes:
        watch: a shadow router that watches; None by default, and after a resume.
        changes: what was done to the routers, and the way back.
        held: what is let go with the trainer, such as the lock of the run.
    """

    def __init__(
        self,
        model: Transformer,
        batches: Batches,
        config: TrainConfig,
        *,
        folder: Path | None = None,
        recorder: Recorder | None = None,
        group: ProcessGroup | None = None,
    ):
        self.model, self.batches, self.config = model, batches, config
        self.folder, self.recorder, self.group = folder, recorder, group
        self.precision = precision_of(model.device, config.dtype)
        self.optimizer = build_optimizer(model, config)
        self.state = TrainState()
        self.changes = RouterChanges(model, self.optimizer, batches, config, self.precision)
        self.watch: Watch | None = None
        self.held = ExitStack()
        self._saved_step, self._probed_step, self._is_torn = -1, -1, False

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.state.step

    @property
    def tokens(self) -> int:
        """Training tokens seen."""
        return self.state.tokens

    def run(self, steps: int) -> Generator[StepReport, None, None]:
        """Train so many more steps.

        A checkpoint is written every `checkpoint_every` steps, at the end, and when the caller stops
        iterating or interrupts.

        Raises:
            ValueError: a negative number of steps.
            NonFiniteLossError: the loss or gradient norm is not finite; names the step and the last good
                checkpoint. The step was not taken.
            CheckpointError: a checkpoint could not be written; earlier ones are untouched.
        """
        at_least("steps", steps, 0)
        return self._run(steps)

    def _run(self, steps: int) -> Generator[StepReport, None, None]:
        try:
            for _ in range(steps):
                report = self._one_step()
                every = self.config.checkpoint_every
                if every and self.step % every == 0:
                    self.save()
                yield report
        except (NonFiniteLossError, CheckpointError):
            raise
        except BaseException:
            self._save_if_whole()
            raise
        self.save()

    def swap(
        self, router: Spec, *, carry: bool = True, rebuild_experts: bool = False, actor: str = "python"
    ) -> SwapReport:
        """Exchange the routers between two steps, after a trial on one sequence; a failure leaves the old ones.

        Args:
            carry: take over router tensors where name and shape agree.
            rebuild_experts: make experts anew where the router requires another kind.
            actor: who asked, for the trace.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit, or a router that cannot work in this model.
        """
        context = training_context(self.config, self.step)
        report = self.changes.swap(router, self.state, context, carry=carry, rebuild_experts=rebuild_experts)
        self.note("swap_router", router.to_json(), actor, str(report))
        return report

    def undo(self, *, actor: str = "python") -> str:
        """Bring back the router before the last swap with its optimiser state; experts keep what they learned.

        Raises:
            ValueError: no swap was made since this trainer began.
        """
        self.note("undo", {}, actor, result := self.changes.undo())
        return result

    def rewind(self, *, actor: str = "python", to_start: bool = False) -> str:
        """Go back to the last swap, or to the start, bit for bit; what was trained since is lost.

        Raises:
            ValueError: no swap was made since this trainer began, or it was undone; or no start is kept.
            OSError: the trace or the checkpoints on disk cannot be changed.
        """
        left, self.state = self.step, self.changes.rewind(to_start=to_start)
        result = f"back from step {left} to step {self.step}, {'the start' if to_start else 'before the swap'}"
        self.note("rewind", {"from_step": left}, actor, result)
        if self.folder is not None:
            # a new checkpoint first: a run that is killed here must have one to go on from.
            forget_after(self.save(keep_all=True))
        if self.recorder is not None:
            self.recorder.rewind(self.step)
        return result

    @property
    def can_rewind(self) -> bool:
        """Whether `rewind` has somewhere to go back to."""
        return self.changes.can_rewind

    def note(self, op: str, args: Mapping[str, Any], actor: str, result: str) -> None:
        """Write down what somebody did to the run just now, for its trace and its next report."""
        self.state = self.state.after_event(control_event(op, args, actor=actor, step=self.step, result=result))
        # a checkpoint of this step, if there is one, does not know of it.
        self._saved_step = -1

    def evaluate(self) -> dict[str, float]:
        """Held-out loss per domain [bit/byte]."""
        return evaluate_domains(self.model, self.batches, self.config.evaluation_windows, self.precision)

    def save(self, *, keep_all: bool = False) -> Path | None:
        """Write a checkpoint of this step, unless there is one already or nowhere to write.

        Args:
            keep_all: remove no older one.

        Raises:
            CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        if self.folder is None or self._saved_step == self.step:
            return None
        with interrupts_held():
            if self.recorder is not None:
                # a run that goes on from this checkpoint goes on with the trace that is on disk.
                self.recorder.flush()
            keep = None if keep_all else self.config.keep_checkpoints
            path = save_checkpoint(self.folder, self.model, self.optimizer, self.state, keep=keep)
            self._saved_step = self.step
        return path

    def restore(self, checkpoint: Path, state: TrainState) -> None:
        """Go on where a checkpoint of this model left off; the recorder must hold nothing later.

        Raises:
            ValueError: the checkpoint is damaged or of another model.
        """
        load_optimizer(checkpoint, self.model, self.optimizer)
        self.state, self._saved_step = state, state.step

    def close(self) -> None:
        """Write what is pending and let go of the run's files; the model stays usable."""
        try:
            self.save()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of the run's files without another checkpoint."""
        with self.held:
            if self.recorder is not None:
                self.recorder.close()

    def _one_step(self) -> StepReport:
        if self.step == 0:
            self._probe()
        began = time.perf_counter()
        try:
            self.optimizer.zero_grad()
            rules = step_rules(self.config, self.step, self.group)
            parts = [self._micro_batch(index, rules) for index in range(self.config.micro_batches)]
            norm = clip_gradients(self.model, self.config.grad_clip)
            check_finite(self.step + 1, fmean(part.loss for part in parts), norm, self.folder)
        except BaseException:
            self._abandon_step()
            raise
        with interrupts_held():
            return self._finish_step(parts, norm, began)

    def _micro_batch(self, index: int, rules: LossRules) -> MicroBatch:
        config = self.config
        batch = self.batches.batch(self.step * config.micro_batches + index)
        part, output = run_micro_batch(
            self.model,
            batch,
            training_context(config, self.step, index),
            self.precision,
            share=1 / config.micro_batches,
            recompute=config.recompute,
            watch=self.watch,
            rules=rules,
        )
        if self.recorder is not None:
            self.recorder.add(batch, output, phase="train", step=self.step + 1)
        return part

    def _abandon_step(self) -> None:
        self.optimizer.zero_grad()
        if self.recorder is not None:
            # a full disk is reported by the error that is on its way.
            with suppress(OSError):
                self.recorder.rewind(self.step)

    def _finish_step(self, parts: Sequence[MicroBatch], norm: float, began: float) -> StepReport:
        rate = learning_rate(self.config, self.step)
        set_learning_rate(self.optimizer, rate)
        self._is_torn = True
        self.optimizer.step()
        if self.watch is not None:
            self.watch.step()
        tallies = tally(parts)
        self.model.update_routers(tallies)
        seconds = time.perf_counter() - began
        tokens = sum(part.tokens for part in parts)
        self.state = self.state.after_step(tokens, seconds)
        self._is_torn = False
        every = self.config.evaluate_every
        report = step_report(
            self.state,
            parts,
            learning_rate=rate,
            grad_norm=norm,
            tokens_per_second=tokens / seconds,
            bits_per_byte=self.evaluate() if every and self.step % every == 0 else {},
        )
        if self.recorder is not None:
            self.recorder.add_report(report, tallies=tallies)
        self._probe()
        return report

    def _probe(self) -> None:
        if self.recorder is None or not self.recorder.is_probe_due(self.step) or self._probed_step == self.step:
            return
        shadow, context = self.watch and self.watch.shadow, training_context(self.config, self.step)
        record_probe(self.recorder, self.model, self.batches, context, self.precision, shadow=shadow)
        self._probed_step = self.step

    def _save_if_whole(self) -> None:
        if self._is_torn:
            return
        try:
            self.save()
        except OSError as error:
            # what stopped the run is on its way and goes first.
            warnings.warn(f"the run was stopped at step {self.step}, and {error}", stacklevel=2)
