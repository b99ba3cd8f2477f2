"""A snapshot holds its own copies: training after it does not reach them, and it can be restored twice."""

import torch

from workbench.core import Spec
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
    trainer.model.set_router(Spec("hash"), 0)
    trainer.state = snapshot.restore(trainer.model, trainer.optimizer, trainer.config)
    assert trainer.model.config.router.name == "top_k"
    assert_same_bits(everything(trainer), before)
