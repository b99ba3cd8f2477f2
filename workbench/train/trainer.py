"""The training loop: a generator of one report per optimiser step."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import final

import torch

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.records import ControlEvent, StepReport
from workbench.core.spec import Spec
from workbench.data.batches import Batches
from workbench.model.transformer import Transformer
from workbench.trace.record import Recorder
from workbench.train.checkpoint import CheckpointError, TrainState, load_optimizer, save_checkpoint
from workbench.train.config import TrainConfig
from workbench.train.evaluate import bits_per_byte
from workbench.train.finite import NonFiniteLossError, check_finite
from workbench.train.forward import forward_batch
from workbench.train.interrupts import interrupts_held
from workbench.train.micro_batch import MicroBatch, first_sequence, run_micro_batch, tally
from workbench.train.optim import build_optimizer, set_learning_rate
from workbench.train.precision import precision_of
from workbench.train.schedule import learning_rate
from workbench.train.swap import SwapReport, swap_routers

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

    Attributes:
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
    ):
        self.model, self.batches, self.config = model, batches, config
        self.folder, self.recorder = folder, recorder
        self.precision = precision_of(model.device, config.dtype)
        self.optimizer = build_optimizer(model, config)
        self.state = TrainState()
        self.held = ExitStack()
        self._saved_step = self._probed_step = -1
        self._is_torn = False

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.state.step

    @property
    def tokens(self) -> int:
        """Training tokens seen."""
        return self.state.tokens

    @property
    def trained_seconds(self) -> float:
        """Time spent in training steps [s]; evaluations and probes are not counted."""
        return self.state.trained_seconds

    def run(self, steps: int) -> Iterator[StepReport]:
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

    def _run(self, steps: int) -> Iterator[StepReport]:
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

    def swap(self, router: Spec, *, carry: bool = True, actor: str = "python") -> SwapReport:
        """Exchange the routers between two steps, after a trial on one sequence; a failure leaves the old ones.

        Args:
            carry: take over router tensors where name and shape agree.
            actor: who asked, for the trace.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit, or a router that cannot work in this model.
        """
        report = swap_routers(self.model, self.optimizer, self.config, router, carry=carry, trial=self._try_routers)
        event = ControlEvent(
            op="swap_router",
            args=router.to_json(),
            time_ns=time.time_ns(),
            actor=actor,
            accepted_step=self.step,
            applied_step=self.step + 1,
            result=str(report),
        )
        self.state = replace(self.state, events=(*self.state.events, event))
        # a checkpoint of this step, if there is one, still has the old routers.
        self._saved_step = -1
        return report

    def evaluate(self) -> dict[str, float]:
        """Held-out loss per domain [bit/byte]."""
        windows, counts = self.config.evaluation_windows, self.batches.tokenizer.byte_counts
        return {
            domain: bits_per_byte(
                self.model, self.batches.evaluation(domain, max_windows=windows), counts, precision=self.precision
            )
            for domain in self.batches.corpus.domains
        }

    def save(self) -> Path | None:
        """Write a checkpoint of this step, unless there is one already or nowhere to write.

        Raises:
            CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        if self.folder is None or self._saved_step == self.step:
            return None
        with interrupts_held():
            if self.recorder is not None:
                # a run that goes on from this checkpoint goes on with the trace that is on disk.
                self.recorder.flush()
            keep = self.config.keep_checkpoints
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
            parts = [self._micro_batch(index) for index in range(self.config.micro_batches)]
            norm = self._grad_norm()
            check_finite(self.step + 1, fmean(part.loss for part in parts), norm, self.folder)
        except BaseException:
            self._abandon_step()
            raise
        with interrupts_held():
            return self._finish_step(parts, norm, began)

    def _micro_batch(self, index: int) -> MicroBatch:
        batch = self.batches.batch(self.step * self.config.micro_batches + index)
        share = 1 / self.config.micro_batches
        part, output = run_micro_batch(
            self.model, batch, self._context(index), self.precision, share=share, recompute=self.config.recompute
        )
        if self.recorder is not None:
            self.recorder.add(batch, output, phase="train", step=self.step + 1)
        return part

    def _context(self, micro_batch: int) -> RouteContext:
        horizon = self.config.num_steps or 0
        return RouteContext(
            phase="train", step=self.step, num_steps=horizon, seed=self.config.seed, micro_batch=micro_batch
        )

    def _grad_norm(self) -> float:
        limit = self.config.grad_clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))

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
        tallies = tally(parts)
        self.model.update_routers(tallies)
        seconds = time.perf_counter() - began
        tokens = sum(part.tokens for part in parts)
        self.state = replace(
            self.state,
            step=self.step + 1,
            tokens=self.tokens + tokens,
            trained_seconds=self.trained_seconds + seconds,
        )
        self._is_torn = False
        report = self._report(parts, rate, norm, tokens / seconds)
        if self.recorder is not None:
            self.recorder.add_report(report, tallies=tallies)
        self._probe()
        return report

    def _report(self, parts: Sequence[MicroBatch], rate: float, norm: float, speed: float) -> StepReport:
        every, aux = self.config.evaluate_every, parts[0].aux
        return StepReport(
            step=self.step,
            loss=fmean(part.loss for part in parts),
            aux_losses={name: fmean(part.aux.means[name] for part in parts) for name in aux.means},
            aux_weights=aux.weights,
            learning_rate=rate,
            grad_norm=norm,
            tokens=self.tokens,
            tokens_per_second=speed,
            wall_seconds=self.trained_seconds,
            bits_per_byte=self.evaluate() if every and self.step % every == 0 else {},
            events=tuple(event for event in self.state.events if event.applied_step == self.step),
        )

    @torch.no_grad()
    def _probe(self) -> None:
        if self.recorder is None or not self.recorder.is_probe_due(self.step) or self._probed_step == self.step:
            return
        batch = self.batches.probe()
        context = RouteContext(phase="prefill", step=self.step, seed=self.config.seed)
        output = forward_batch(self.model, batch, context, self.precision)
        self.recorder.add(batch, output, phase="prefill", step=self.step, is_probe=True)
        self._probed_step = self.step

    def _try_routers(self) -> None:
        one = first_sequence(self.batches.batch(self.step * self.config.micro_batches))
        run_micro_batch(self.model, one, self._context(0), self.precision)

    def _save_if_whole(self) -> None:
        if self._is_torn:
            return
        try:
            self.save()
        except OSError as error:
            # what stopped the run is on its way and goes first.
            warnings.warn(f"the run was stopped at step {self.step}, and {error}", stacklevel=2)
