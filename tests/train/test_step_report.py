"""A report holds the means of its micro-batches and the events that came just before its step."""

import torch

from workbench.train.checkpoint import TrainState
from workbench.train.loss import Auxiliary
from workbench.train.micro_batch import MicroBatch
from workbench.train.step_report import control_event, step_report


def part(loss: float, balance: float) -> MicroBatch:
    aux = Auxiliary(torch.zeros(()), {"balance": balance}, {"balance": 0.01}, [])
    return MicroBatch(loss=loss, tokens=4, sites=(), aux=aux)


def test_losses_are_means_and_events_those_of_the_step():
    old = control_event("swap_router", {}, actor="ada", step=1, result="then")
    new = control_event("undo", {"a": 1}, actor="ada", step=4, result="now")
    state = TrainState(step=5, tokens=40, trained_seconds=2.0, events=(old, new))
    report = step_report(
        state,
        [part(1.0, 1.5), part(3.0, 2.5)],
        learning_rate=0.1,
        grad_norm=0.5,
        tokens_per_second=8.0,
        bits_per_byte={"english": 2.0},
    )
    assert (report.step, report.loss, report.aux_losses, report.tokens) == (5, 2.0, {"balance": 2.0}, 40)
    assert (report.aux_weights, report.bits_per_byte) == ({"balance": 0.01}, {"english": 2.0})
    assert [(event.op, event.accepted_step, event.applied_step) for event in report.events] == [("undo", 4, 5)]
