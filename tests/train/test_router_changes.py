"""Swap, undo and rewind of a run, against the run that was never touched."""

import pytest

from workbench.core import Spec
from workbench.train.optim import is_of_router, named_states


def everything(trainer):
    tensors = {**trainer.model.state_dict(), **named_states(trainer.model, trainer.optimizer)}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def losses(trainer, steps):
    return [report.loss for report in trainer.run(steps)]


def test_rewind_is_the_run_that_never_swapped_bit_for_bit(start, assert_same_bits):
    plain, swapped = start(), start()
    losses(plain, 2), losses(swapped, 2)
    before = everything(swapped)
    swapped.swap(Spec("switch"))
    losses(swapped, 3)
    assert swapped.rewind() == "back from step 5 to step 2, before the swap"
    assert_same_bits(everything(swapped), before)
    assert losses(swapped, 3) == losses(plain, 3)
    assert_same_bits(everything(swapped), everything(plain))


def test_undo_brings_back_the_old_router_with_its_state_and_keeps_what_experts_learned(start, assert_same_bits):
    trainer = start()
    losses(trainer, 2)
    before = everything(trainer)
    trainer.swap(Spec("switch"))
    losses(trainer, 2)
    learned = everything(trainer)
    trainer.undo()
    after = everything(trainer)
    routers = {name for name in before if is_of_router(name.partition("|")[0])}
    assert routers
    assert_same_bits({n: after[n] for n in routers}, {n: before[n] for n in routers})
    rest = set(before) - routers
    assert_same_bits({n: after[n] for n in rest}, {n: learned[n] for n in rest})
    assert trainer.model.config.router.name == "top_k"
    assert len(losses(trainer, 2)) == 2


def test_swaps_are_undone_one_by_one(start):
    trainer = start()
    for name in ("switch", "hash", "dense"):
        trainer.swap(Spec(name))
        losses(trainer, 1)
    for name in ("hash", "switch", "top_k"):
        trainer.undo()
        assert trainer.model.config.router.name == name
        losses(trainer, 1)
    with pytest.raises(ValueError, match="there is no router swap to undo"):
        trainer.undo()


def test_only_the_newest_swap_can_be_rewound(start):
    trainer = start()
    with pytest.raises(ValueError, match="there is no router swap to rewind to"):
        trainer.rewind()
    trainer.swap(Spec("switch"))
    trainer.swap(Spec("hash"))
    trainer.undo()
    with pytest.raises(ValueError, match="only the newest swap can be rewound"):
        trainer.rewind()


def test_after_a_rewind_disk_and_trace_hold_nothing_later(start, tmp_path):
    trainer = start(folder=tmp_path / "a", checkpoint_every=1)
    losses(trainer, 2)
    trainer.swap(Spec("switch"))
    losses(trainer, 3)
    trainer.rewind()
    assert max(trainer.recorder.trace()["run"]["step"].values) == 2
    assert sorted(path.name for path in (tmp_path / "a" / "checkpoints").glob("step_*"))[-1] == "step_00000002"
    losses(trainer, 1)
    control = trainer.recorder.trace()["control"]
    assert control["op"].values.tolist() == ["rewind"]
    assert control["applied_step"].values.tolist() == [3]
    trainer.close()


def test_a_swap_says_what_it_did_to_the_same_tokens(start):
    trainer = start()
    losses(trainer, 1)
    report = trainer.swap(Spec("switch"))
    assert report.diff is not None
    # the gate is carried over: Switch takes the better of top-2's two experts, so half of the assignments stay.
    assert report.diff.moved.values.tolist() == [0.5] * len(report.diff.moved)
    assert report.diff.loss_delta != 0
    assert report.stall_seconds > 0
    assert "assignments moved" in repr(report.diff)


def test_a_loss_that_is_no_number_keeps_the_old_router(start, monkeypatch):
    trainer = start()
    original = trainer.model.config.router

    class Part:
        loss = float("nan")

    monkeypatch.setattr("workbench.train.router_changes.run_micro_batch", lambda *a, **k: (Part(), None))
    with pytest.raises(ValueError, match="gives a loss of nan; the old router stays"):
        trainer.swap(Spec("switch"))
    assert trainer.model.config.router == original
