"""The probe is the same text every time, decided as in prefill, and its loss is that of the next token."""

import torch

from workbench.core import RouteContext
from workbench.trace import Recorder
from workbench.train.precision import FULL_PRECISION
from workbench.train.probe import look_at_probe, probe_loss, record_probe


def test_it_is_a_held_out_pass_of_a_fixed_text(start):
    trainer = start()
    first = look_at_probe(trainer.model, trainer.batches, RouteContext(phase="train", step=3), FULL_PRECISION)
    again = look_at_probe(trainer.model, trainer.batches, RouteContext(phase="train", step=9), FULL_PRECISION)
    assert torch.equal(first[0].token_ids, again[0].token_ids)
    assert torch.equal(first[1].logits, again[1].logits)
    assert not first[1].logits.requires_grad
    assert first[1].context.phase == "prefill"


def test_it_is_recorded_as_what_it_is_at_its_step(start):
    trainer, recorder = start(), Recorder()
    record_probe(recorder, trainer.model, trainer.batches, RouteContext(step=7), FULL_PRECISION)
    routing = recorder.trace()["routing"]
    assert routing["is_probe"].values.all()
    assert set(routing["step"].values.tolist()) == {7}


def test_its_loss_is_that_of_every_next_token_by_hand(start):
    trainer = start()
    batch, output = look_at_probe(trainer.model, trainer.batches, RouteContext(), FULL_PRECISION)
    total, count = 0.0, 0
    for row in range(len(batch.token_ids)):
        length = batch.token_ids.shape[1] if batch.mask is None else int(batch.mask[row].sum())
        for place in range(length - 1):
            total -= float(output.logits[row, place].log_softmax(-1)[batch.token_ids[row, place + 1]])
            count += 1
    assert abs(probe_loss(batch, output) - total / count) < 1e-4
