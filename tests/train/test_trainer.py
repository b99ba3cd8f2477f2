"""The loop: what a step reports, what stops it, and what is left when it stops."""

import math
import signal

import numpy as np
import pytest
import torch

from workbench.core import Spec
from workbench.core.records import ControlEvent
from workbench.data import Batches, load_tokenizer, open_corpus
from workbench.model.transformer import Transformer, initialise
from workbench.trace import Recorder, Sampling
from workbench.train import trainer as trainer_module
from workbench.train.checkpoint import CheckpointError, checkpoints, read_checkpoint
from workbench.train.finite import NonFiniteLossError
from workbench.train.schedule import learning_rate
from workbench.train.trainer import Trainer


def steps_of(folder) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in checkpoints(folder / "checkpoints")]


@pytest.fixture
def bare(shape, corpus, make_config):
    """A trainer without files, with a recorder of its own."""

    def make(sampling: Sampling | None = None, **changes) -> Trainer:
        config, opened = make_config(**changes), open_corpus(corpus)
        sizes = {"batch_size": config.batch_size, "sequence_length": config.sequence_length}
        batches = Batches(opened, load_tokenizer("byte"), **sizes, seed=config.seed)
        return Trainer(initialise(Transformer(shape), 0), batches, config, recorder=Recorder(sampling=sampling))

    return make


def test_a_report_says_what_the_step_was(start):
    trainer = start(evaluate_every=2)
    first, second = trainer.run(2)
    assert [first.step, second.step] == [1, 2]
    assert [first.tokens, second.tokens] == [64, 128]
    assert first.loss == pytest.approx(math.log(257), rel=0.05)
    assert [r.learning_rate for r in (first, second)] == [learning_rate(trainer.config, step) for step in (0, 1)]
    assert first.aux_weights == {"balance": 0.01, "z": 0.0} or first.aux_weights == {"balance": 0.01}
    assert first.aux_losses["balance"] == pytest.approx(1, abs=0.2)
    assert 0 < first.wall_seconds < second.wall_seconds == trainer.state.trained_seconds
    assert first.tokens_per_second == pytest.approx(64 / first.wall_seconds)
    assert first.bits_per_byte == {}
    assert second.bits_per_byte == trainer.evaluate()


def test_the_reported_rate_is_the_one_that_was_used(start):
    trainer = start(warmup_steps=10)
    for report in trainer.run(3):
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {report.learning_rate}


def test_two_micro_batches_are_one_batch_of_twice_the_size(start):
    [whole] = start(batch_size=4, router="top_k:balance=0.0").run(1)
    [parts] = start(batch_size=2, micro_batches=2, router="top_k:balance=0.0").run(1)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    assert parts.tokens == whole.tokens


@pytest.mark.parametrize(("limit", "is_clipped"), [(0.01, True), (0.0, False)])
def test_the_gradient_is_clipped_and_reported_as_it_was(limit, is_clipped, start):
    trainer = start(grad_clip=limit)
    [report] = trainer.run(1)
    norm = float(torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm())
    assert report.grad_norm > 0.1
    assert norm == pytest.approx(limit if is_clipped else report.grad_norm, rel=1e-3)


def test_recomputing_activations_changes_no_loss(start, losses_of):
    assert losses_of(start(recompute=True, router="switch"), 3) == losses_of(start(router="switch"), 3)


def test_routers_learn_what_the_whole_step_did(start, monkeypatch):
    trainer, tallies = start(micro_batches=2), []
    for layer in trainer.model.moe_layers():
        monkeypatch.setattr(layer.router, "update", tallies.append)
    list(trainer.run(1))
    for place, seen in enumerate(tallies):
        assert [(one.layer, one.tokens, int(one.demand.sum())) for one in seen] == [(0, 128, 256), (1, 128, 256)]
        assert [one.is_here for one in seen] == [place == 0, place == 1]


def test_a_negative_number_of_steps_is_refused_at_once(start):
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        start().run(-1)


def test_checkpoints_come_at_their_interval_and_at_the_end(start, tmp_path):
    trainer = start(folder=tmp_path / "a", checkpoint_every=2, keep_checkpoints=3)
    list(trainer.run(5))
    assert steps_of(tmp_path / "a") == [2, 4, 5]


def test_a_loop_that_is_left_early_is_saved(start, tmp_path, assert_same_bits):
    trainer = start(folder=tmp_path / "a")
    for report in trainer.run(10):
        if report.step == 3:
            break
    assert steps_of(tmp_path / "a") == [0, 3]
    saved, state = read_checkpoint(tmp_path / "a" / "checkpoints" / "step_00000003")
    assert state == trainer.state
    assert_same_bits(saved.state_dict(), trainer.model.state_dict())


def test_an_interrupt_in_the_update_waits_until_the_step_is_whole(start, tmp_path, monkeypatch, contents_of):
    trainer, update = start(folder=tmp_path / "a"), torch.optim.AdamW.step
    list(trainer.run(1))

    def interrupted(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return update(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(trainer.run(5))
    monkeypatch.undo()
    assert trainer.step == 2
    assert steps_of(tmp_path / "a") == [0, 1, 2]
    assert trainer.recorder.trace()["run"]["step"].values.tolist() == [1, 2]
    whole = start()
    list(whole.run(2))
    assert all(torch.equal(v, contents_of(whole)[k]) for k, v in contents_of(trainer).items())


def test_an_interrupt_before_the_update_takes_nothing_and_records_nothing(start, tmp_path, losses_of):
    trainer, calls = start(folder=tmp_path / "a", micro_batches=2), []

    def interrupt(module, inputs):
        calls.append(module)
        # the probe, the first micro-batch, the second.
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = trainer.model.blocks[0].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(trainer.run(5))
    hook.remove()
    assert (trainer.step, steps_of(tmp_path / "a")) == (0, [0])
    assert losses_of(trainer, 2) == losses_of(start(micro_batches=2), 2)
    trace = trainer.recorder.trace()
    assert trace["load"]["step"].values.tolist() == [1, 2]
    assert trace["load"]["tokens"].values.tolist() == [128] * 2
    assert np.count_nonzero(trace["routing"]["phase"].values == "train") == 128


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_leaves_the_weights_and_names_the_way_back(
    where, start, tmp_path, contents_of, assert_same_bits, losses_of
):
    trainer = start(folder=tmp_path / "a")
    losses = losses_of(trainer, 2)
    before = contents_of(trainer)
    if where == "loss":
        hook = trainer.model.norm.register_forward_hook(lambda module, inputs, output: output * math.nan)
    else:
        hook = trainer.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteLossError) as stopped:
        next(trainer.run(3))
    hook.remove()
    text = str(stopped.value)
    assert text.startswith("step 3: expected a finite loss and gradient")
    assert str(tmp_path / "a" / "checkpoints" / "step_00000002") in text
    assert trainer.step == 2
    assert_same_bits(contents_of(trainer), before)
    assert losses + losses_of(trainer, 2) == losses_of(start(), 4)
    assert trainer.recorder.trace()["load"]["step"].values.tolist() == [1, 2, 3, 4]


def test_a_full_disk_stops_the_run_and_keeps_the_older_checkpoint(start, tmp_path, monkeypatch):
    trainer, save, tries = start(folder=tmp_path / "a", checkpoint_every=1), trainer_module.save_checkpoint, []

    def full(folder, model, optimizer, state, *, keep):
        if state.step == 2:
            tries.append(state.step)
            raise CheckpointError("could not write checkpoint step_00000002 (No space left on device)")
        return save(folder, model, optimizer, state, keep=keep)

    monkeypatch.setattr(trainer_module, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        list(trainer.run(3))
    assert tries == [2]
    assert steps_of(tmp_path / "a") == [0, 1]
    read_checkpoint(tmp_path / "a" / "checkpoints" / "step_00000001")


def test_a_disk_that_fills_while_the_run_is_stopped_is_said_and_hides_nothing(start, tmp_path, monkeypatch):
    trainer = start(folder=tmp_path / "a")

    def full(*arguments, **options):
        raise CheckpointError("could not write checkpoint")

    monkeypatch.setattr(trainer_module, "save_checkpoint", full)
    run = trainer.run(3)
    next(run)
    with pytest.warns(UserWarning, match="stopped at step 1, and could not write checkpoint"):
        run.close()


def test_a_half_updated_model_is_not_saved(start, tmp_path, monkeypatch):
    run = start(folder=tmp_path / "a").run(3)
    next(run)

    def broken(self, *arguments):
        self.param_groups[0]["params"][0].data.zero_()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(run)
    assert steps_of(tmp_path / "a") == [0]


def test_a_swap_is_an_event_of_the_step_that_it_changes_first(start):
    trainer = start()
    list(trainer.run(2))
    report = trainer.swap(Spec("switch", {"jitter": 0.0}), actor="ada")
    third, fourth = trainer.run(2)
    [event] = third.events
    assert isinstance(event, ControlEvent)
    assert (event.op, event.actor, event.accepted_step, event.applied_step) == ("swap_router", "ada", 2, 3)
    assert event.args == {"name": "switch", "args": {"jitter": 0.0}}
    assert event.result == str(report)
    assert fourth.events == ()
    assert trainer.recorder.trace()["control"]["applied_step"].values.tolist() == [3]


def test_a_router_that_cannot_work_here_is_tried_before_it_is_kept(start, monkeypatch):
    trainer = start()
    list(trainer.run(1))

    def refuse(*arguments, **options):
        raise ValueError("no attention here")

    monkeypatch.setattr("workbench.train.router_changes.run_micro_batch", refuse)
    with pytest.raises(ValueError, match="no attention here"):
        trainer.swap(Spec("switch"))
    monkeypatch.undo()
    assert trainer.model.config.router.name == "top_k"
    assert trainer.state.events == ()
    [report] = trainer.run(1)
    assert report.events == ()


def test_the_trial_of_a_router_leaves_no_gradient_and_no_record(start, losses_of):
    tried, plain = start(), start()
    for trainer in (tried, plain):
        list(trainer.run(1))
    tried.swap(Spec("top_k"))
    assert losses_of(tried, 2) == losses_of(plain, 2)
    assert tried.recorder.trace()["load"]["step"].values.tolist() == [1, 2, 3]


def test_the_probe_is_recorded_before_the_first_step_and_at_its_interval(bare):
    trainer = bare(Sampling(probe_every=2, train_every=0))
    list(trainer.run(1))
    list(trainer.run(3))
    routing = trainer.recorder.trace()["routing"]
    tokens = len(load_tokenizer("byte").encode(trainer.batches.corpus.probe_text))
    assert routing["step"].values.tolist() == [0] * tokens + [2] * tokens + [4] * tokens
    assert routing["is_probe"].values.all()


def test_a_trainer_without_a_recorder_or_a_folder_trains_the_same(bare, losses_of):
    recorded, silent = bare(), bare()
    silent.recorder = None
    assert losses_of(silent, 3) == losses_of(recorded, 3)
    assert silent.save() is None


def test_bfloat16_products_train_float32_weights(start):
    trainer = start(dtype="bfloat16")
    losses = [report.loss for report in trainer.run(6)]
    assert losses[-1] < losses[0]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_the_same_seed_is_the_same_run_and_another_is_not(start, losses_of):
    first = losses_of(start(seed=1, router="gshard"), 3)
    assert losses_of(start(seed=1, router="gshard"), 3) == first
    assert losses_of(start(seed=2, router="gshard"), 3) != first
