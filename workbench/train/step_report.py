"""What a step says of itself: its report, and the events between steps."""

import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from workbench.core.records import ControlEvent, StepReport
from workbench.train.checkpoint import TrainState
from workbench.train.micro_batch import MicroBatch

__all__ = ["control_event", "step_report"]


def control_event(op: str, args: Mapping[str, Any], *, actor: str, step: int, result: str) -> ControlEvent:
    """Something that a person did between two steps, now."""
    return ControlEvent(
        op=op,
        args=args,
        time_ns=time.time_ns(),
        actor=actor,
        accepted_step=step,
        applied_step=step + 1,
        result=result,
    )


def step_report(
    state: TrainState,
    parts: Sequence[MicroBatch],
    *,
    learning_rate: float,
    grad_norm: float,
    tokens_per_second: float,
    bits_per_byte: Mapping[str, float],
) -> StepReport:
    """The report of the step that led to a state, from its micro-batches."""
    aux = parts[0].aux
    return StepReport(
        step=state.step,
        loss=fmean(part.loss for part in parts),
        aux_losses={name: fmean(part.aux.means[name] for part in parts) for name in aux.means},
        aux_weights=aux.weights,
        learning_rate=learning_rate,
        grad_norm=grad_norm,
        tokens=state.tokens,
        tokens_per_second=tokens_per_second,
        wall_seconds=state.trained_seconds,
        bits_per_byte=bits_per_byte,
        events=tuple(event for event in state.events if event.applied_step == state.step),
    )
