"""A snapshot holds its own copies: training after it does not reach them, and it can be restored twice."""

from threading import Event, Timer

import torch

from workbench.core import Spec
from workbench.train import snapshot as module
from workbench.train.optim import named_states
from workbench.train.snapshot import Snapshot


def everything(trainer):
    tensors = {**trainer.model.state_dict(), **named_states(trainer.model, trainer.optimizer)}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def steps(trainer, count):
    return [report.loss for report in trainer.run(count)]


def test_what_is_restored_is_what_was_taken_twice(start, assert_same_bits):
    trainer = start()
    trainer.recorder = None
    steps(trainer, 2)
    before = everything(trainer)
    snapshot = Snapshot(trainer.model, trainer.optimizer, trainer.state)
    snapshot.settle()
    losses = []
    for _ in range(2):
        losses.append(steps(trainer, 2))
        assert any(not torch.equal(before[name], value) for name, value in everything(trainer).items())
        trainer.state = snapshot.restore(trainer.model, trainer.optimizer, trainer.config)
        assert_same_bits(everything(trainer), before)
        assert trainer.step == 2
    assert losses[0] == losses[1]


def test_it_brings_back_other_routers_too(start, assert_same_bits):
    trainer = start()
    steps(trainer, 1)
    before = everything(trainer)
    snapshot = Snapshot(trainer.model, trainer.optimizer, trainer.state)
    snapshot.settle()
    trainer.model.set_router(Spec("hash"), 0)
    trainer.state = snapshot.restore(trainer.model, trainer.optimizer, trainer.config)
    assert trainer.model.config.router.name == "top_k"
    assert_same_bits(everything(trainer), before)


def test_the_optimiser_waits_until_the_copies_are_made(start, assert_same_bits, monkeypatch):
    trainer, may_copy, fill = start(), Event(), module._fill
    monkeypatch.setattr(module, "_fill", lambda pairs: may_copy.wait(60) and fill(pairs))
    steps(trainer, 1)
    before = everything(trainer)
    trainer.swap(Spec("switch"))
    Timer(1.0, may_copy.set).start()
    steps(trainer, 1)
    assert may_copy.is_set()
    trainer.rewind()
    assert_same_bits(everything(trainer), before)


def test_two_swaps_without_a_step_between_keep_the_state_before_the_second(start, assert_same_bits):
    trainer = start()
    steps(trainer, 1)
    trainer.swap(Spec("hash"))
    before = everything(trainer)
    trainer.swap(Spec("switch"))
    steps(trainer, 2)
    trainer.rewind()
    assert_same_bits(everything(trainer), before)
