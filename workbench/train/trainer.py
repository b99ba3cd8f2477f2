"""The training loop: a generator of one report per optimiser step."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import torch

from workbench.core.context import RouteContext
from workbench.core.records import Batch, ControlEvent, Output, Site, StepReport, Tally
from workbench.core.router import Router
from workbench.core.spec import Spec
from workbench.data.batches import Batches
from workbench.model.transformer import Transformer
from workbench.trace.record import Recorder
from workbench.train.checkpoint import checkpoints, load_optimizer, save_checkpoint
from workbench.train.config import TrainConfig
from workbench.train.evaluate import bits_per_byte
from workbench.train.loss import auxiliary, token_losses
from workbench.train.micro_batch import MicroBatch, tally
from workbench.train.optim import build_optimizer, set_learning_rate
from workbench.train.precision import autocast, precision_of
from workbench.train.schedule import learning_rate
from workbench.train.swap import SwapReport, swap_routers

__all__ = ["NonFiniteLossError", "Trainer"]


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is not a number; the model was not changed by that step."""


@final
class Trainer:
    """Trains a model on batches; `run` yields a report after every step, so it can be stopped and plotted.

    Args:
        model: changed in place.
        batches: a pure function of the batch index, so that a resumed run sees the same data.
        config: how to train.
        folder: where checkpoints go; None keeps none.
        recorder: takes the routings of every step; None records nothing.
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
        self.step = 0
        self.tokens = 0
        self.trained_seconds = 0.0
        self.events: list[ControlEvent] = []
        self._pending: list[ControlEvent] = []
        self._saved_step = -1

    def run(self, steps: int) -> Iterator[StepReport]:
        """Train so many more steps.

        A checkpoint is written every `checkpoint_every` steps, at the end, and when the caller stops
        iterating.

        Raises:
            NonFiniteLossError: the loss or gradient norm is not finite; names the step and the last good
                checkpoint. The step was not taken.
            OSError: a checkpoint could not be written; earlier ones are untouched.
        """
        try:
            for _ in range(steps):
                report = self._one_step()
                every = self.config.checkpoint_every
                if every and self.step % every == 0:
                    self.save()
                yield report
        except NonFiniteLossError:
            raise
        except BaseException:
            self._save_quietly()
            raise
        self.save()

    def swap(self, router: Spec, *, carry: bool = True, actor: str = "python") -> SwapReport:
        """Exchange the routers between two steps; a failure leaves the old ones.

        Args:
            carry: take over router tensors where name and shape agree.
            actor: who asked, for the trace.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit.
        """
        report = swap_routers(self.model, self.optimizer, self.config, router, carry=carry)
        event = ControlEvent(
            op="swap_router",
            args=router.to_json(),
            time_ns=time.time_ns(),
            actor=actor,
            accepted_step=self.step,
            applied_step=self.step + 1,
            result=str(report),
        )
        self.events.append(event)
        self._pending.append(event)
        return report

    def evaluate(self) -> dict[str, float]:
        """Held-out loss per domain [bit/byte]."""
        counts = torch.as_tensor(self.batches.tokenizer.byte_counts)
        windows = self.config.evaluation_windows
        return {
            domain: bits_per_byte(
                self.model,
                self.batches.evaluation(domain, max_windows=windows),
                counts,
                dtype=self.precision.dtype,
            )
            for domain in self.batches.corpus.domains
        }

    def save(self) -> Path | None:
        """Write a checkpoint of this step, unless there is one already or nowhere to write."""
        if self.folder is None or self._saved_step == self.step:
            return None
        path = save_checkpoint(
            self.folder, self.step, self.model, self.optimizer, self._state(), keep=self.config.keep_checkpoints
        )
        self._saved_step = self.step
        return path

    def restore(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint of this model left off.

        Raises:
            ValueError: the checkpoint is damaged or of another model.
        """
        load_optimizer(checkpoint, self.model, self.optimizer)
        self.step, self.tokens = int(state["step"]), int(state["tokens"])
        self.trained_seconds = float(state["trained_seconds"])
        self.events = [ControlEvent(**event) for event in state["events"]]
        self._saved_step = self.step
        self.forget_after(self.step)

    def close(self) -> None:
        """Write what is pending and let go of the run's files; the model stays usable."""
        self.save()
        if self.recorder is not None:
            self.recorder.close()

    def forget_after(self, step: int) -> None:
        """Drop what the trace holds beyond a step: it will be recorded again."""
        if self.recorder is not None:
            self.recorder.rewind(step)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "tokens": self.tokens,
            "trained_seconds": self.trained_seconds,
            "train": self.config.to_json(),
            "events": [{**vars(event), "args": dict(event.args)} for event in self.events],
        }

    def _save_quietly(self) -> None:
        # the caller stopped or something broke between steps: keep the last whole step if the disk allows.
        try:
            self.save()
        except OSError:
            return

    def _one_step(self) -> StepReport:
        start = time.perf_counter()
        rate = learning_rate(self.config, self.step)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad()
        micro = [self._forward_backward(index) for index in range(self.config.micro_batches)]
        norm = self._grad_norm()
        self._check_finite(sum(part.loss for part in micro), norm)
        self.optimizer.step()
        tallies = tally(micro)
        self._update_routers(tallies)
        self.step += 1
        self.tokens += sum(part.tokens for part in micro)
        seconds = time.perf_counter() - start
        self.trained_seconds += seconds
        speed = sum(part.tokens for part in micro) / seconds
        self._probe()
        report = self._report(micro, rate, norm, speed)
        if self.recorder is not None:
            self.recorder.add_report(report, tallies=tallies)
        return report

    def _forward_backward(self, micro: int) -> MicroBatch:
        batch = self.batches.batch(self.step * self.config.micro_batches + micro)
        assert batch.target_ids is not None, "training batches have targets"
        context = RouteContext(
            phase="train",
            step=self.step,
            num_steps=self.config.num_steps or 0,
            seed=self.config.seed,
            micro_batch=micro,
        )
        output = self._forward(batch, context)
        per_token = token_losses(output.logits, batch.target_ids.to(self.model.device))
        loss = per_token.mean()
        aux = auxiliary(output.sites, self._routers(output.sites), per_token)
        ((loss + aux.total) / self.config.micro_batches).backward()
        if self.recorder is not None:
            self.recorder.add(batch, output, phase="train", step=self.step + 1)
        tokens = batch.token_ids.numel() if batch.mask is None else int(batch.mask.sum())
        return MicroBatch(loss=float(loss.detach()), tokens=tokens, sites=output.sites, aux=aux)

    def _forward(self, batch: Batch, context: RouteContext) -> Output:
        device = self.model.device
        with autocast(device, self.precision.dtype):
            output: Output = self.model(
                batch.token_ids.to(device),
                mask=None if batch.mask is None else batch.mask.to(device),
                label=None if batch.domain is None else batch.domain.to(device),
                context=context,
                recompute=self.config.recompute,
            )
        return output

    @torch.no_grad()
    def _probe(self) -> None:
        if self.recorder is None or not self.recorder.is_probe_due(self.step):
            return
        batch = self.batches.probe()
        output = self._forward(batch, RouteContext(phase="prefill", step=self.step, seed=self.config.seed))
        self.recorder.add(batch, output, phase="prefill", step=self.step, is_probe=True)

    def _routers(self, sites: tuple[Site, ...]) -> list[Router]:
        by_layer = {layer.layer: layer.router for layer in self.model.moe_layers()}
        return [by_layer[site.layer] for site in sites]

    def _grad_norm(self) -> float:
        limit = self.config.grad_clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    def _check_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self.optimizer.zero_grad()
        saved = checkpoints(self.folder) if self.folder else []
        last = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written yet"
        raise NonFiniteLossError(
            f"step {self.step + 1}: expected a finite loss and gradient, got loss {loss} and gradient norm {norm}; "
            f"the step was not taken; {last}; lower the learning rate or train in float32"
        )

    def _update_routers(self, tallies: tuple[Tally, ...]) -> None:
        by_layer = {layer.layer: layer.router for layer in self.model.moe_layers()}
        for own in tallies:
            by_layer[own.layer].update(own)

    def _report(self, micro: list[MicroBatch], rate: float, norm: float, speed: float) -> StepReport:
        every = self.config.evaluate_every
        pending, self._pending = tuple(self._pending), []
        return StepReport(
            step=self.step,
            loss=sum(part.loss for part in micro) / len(micro),
            aux_losses={
                name: sum(part.aux.means[name] for part in micro) / len(micro) for name in micro[0].aux.means
            },
            aux_weights=micro[0].aux.weights,
            learning_rate=rate,
            grad_norm=norm,
            tokens=self.tokens,
            tokens_per_second=speed,
            wall_seconds=self.trained_seconds,
            bits_per_byte=self.evaluate() if every and self.step % every == 0 else {},
            events=pending,
        )
