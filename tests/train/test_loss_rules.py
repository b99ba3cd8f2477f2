"""What training says of losses goes in front of the router's word; names are checked before the first step."""

import pytest
import torch

from workbench.core import Spec
from workbench.routers.switch import SwitchRouter
from workbench.train.forward import training_context
from workbench.train.global_counts import GlobalCounts
from workbench.train.loss_rules import LossRules, step_rules
from workbench.train.micro_batch import run_micro_batch
from workbench.train.precision import FULL_PRECISION
from workbench.train.trainer import Trainer

KNOWN = "router top_k and the trainer know balance, z, entropy"
WAY_OUT = "give it one in aux_weights, or leave the schedule out"
STEP = "step:first=1,last=0.005,at=0.5"


def balances(trainer, rules: LossRules) -> list[float]:
    """The balance loss of each micro-batch of the coming step, under common rules."""
    config, found = trainer.config, []
    for index in range(config.micro_batches):
        batch = trainer.batches.batch(trainer.step * config.micro_batches + index)
        context = training_context(config, trainer.step, index)
        part, _ = run_micro_batch(trainer.model, batch, context, FULL_PRECISION, rules=rules)
        found.append(part.aux.means["balance"])
    return found


def test_a_weight_of_the_training_replaces_the_routers_or_joins_it():
    router = SwitchRouter(8, 4, balance=0.01, z=0.5)
    assert LossRules().weights_of(router) == router.loss_weights
    rules = LossRules(weights={"entropy": 1e-3, "balance": 0.02}, factors={"balance": 0.5, "z": 0.1})
    assert rules.weights_of(router) == pytest.approx({"balance": 0.01, "z": 0.05, "entropy": 1e-3})


def test_a_step_has_its_own_counts_and_the_factors_of_its_index(make_config):
    config = make_config(num_steps=10, aux_schedule={"balance": STEP}, balance_over="global_batch")
    assert [step_rules(config, step).factors["balance"] for step in (0, 4, 5, 9, 50)] == [1, 1, 0.005, 0.005, 0.005]
    first, second = step_rules(config, 3), step_rules(config, 3)
    assert isinstance(first.counts, GlobalCounts)
    assert first.counts is not second.counts
    assert step_rules(make_config(), 0).counts is None


def test_the_report_logs_the_weights_in_force(start):
    weights, schedule = {"entropy": 1e-3, "balance": 0.02}, {"balance": STEP, "z": "linear:first=1,last=0"}
    trainer = start(router="switch:z=0.5", num_steps=4, aux_weights=weights, aux_schedule=schedule)
    reports = list(trainer.run(5))
    expected = [(0.02, 0.5), (0.02, 0.375), (1e-4, 0.25), (1e-4, 0.125), (1e-4, 0.0)]
    for report, (balance, z) in zip(reports, expected, strict=True):
        assert report.aux_weights == pytest.approx({"balance": balance, "z": z, "entropy": 1e-3})
    assert set(reports[0].aux_losses) == {"balance", "z", "entropy"}
    assert set(reports[-1].aux_losses) == {"balance", "entropy"}
    run = trainer.recorder.trace()["run"]
    assert run["aux_weight"].sel(aux="z").values.tolist() == pytest.approx([z for _, z in expected])


def test_what_the_router_is_asked_for_may_come_from_either_side(start, losses_of):
    from_router = losses_of(start(router="top_k:balance=0.3,z=0.1"), 3)
    assert losses_of(start(router="top_k:balance=0.0", aux_weights={"balance": 0.3, "z": 0.1}), 3) == from_router
    assert losses_of(start(router="top_k:balance=0.0"), 3) != from_router


def test_the_balance_of_a_step_counts_its_micro_batches_so_far(start):
    trainer = start(micro_batches=3, balance_over="global_batch")
    apart, so_far = balances(trainer, LossRules()), balances(trainer, LossRules(counts=GlobalCounts()))
    [report] = trainer.run(1)
    assert report.aux_losses["balance"] == pytest.approx(sum(so_far) / 3, rel=1e-5)
    assert so_far[0] == apart[0]
    assert so_far[1:] != apart[1:]
    [alone] = start(micro_batches=3).run(1)
    assert alone.aux_losses["balance"] == pytest.approx(sum(apart) / 3, rel=1e-5)


def test_one_micro_batch_is_the_same_run_either_way(start, losses_of):
    assert losses_of(start(balance_over="global_batch"), 3) == losses_of(start(), 3)


def test_the_choice_of_experts_does_not_depend_on_what_is_counted(start):
    trainer = start()
    batch, context = trainer.batches.batch(0), training_context(trainer.config, 0)
    counts = GlobalCounts()
    counts.add([torch.tensor([90, 0, 0, 0])] * 2)
    outputs = [
        run_micro_batch(trainer.model, batch, context, FULL_PRECISION, rules=rules)[1]
        for rules in (LossRules(), LossRules(counts=counts))
    ]
    assert torch.equal(outputs[0].logits, outputs[1].logits)


def test_an_abandoned_step_leaves_no_counts(start, losses_of):
    trainer, calls = start(micro_batches=2, balance_over="global_batch"), []

    def interrupt(module, inputs):
        calls.append(module)
        # the probe, the first micro-batch, the second.
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = trainer.model.blocks[0].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(trainer.run(1))
    hook.remove()
    assert losses_of(trainer, 3) == losses_of(start(micro_batches=2, balance_over="global_batch"), 3)


@pytest.mark.parametrize(("balance_over", "calls"), [("micro_batch", 0), ("global_batch", 2)])
def test_the_ranks_of_a_group_are_asked_once_for_each_micro_batch(balance_over, calls, start, monkeypatch):
    asked, group = [], torch.distributed.ProcessGroup(0, 2)
    monkeypatch.setattr("workbench.train.global_counts.dist.all_reduce", lambda counts, group: asked.append(group))
    alone = start(micro_batches=2, balance_over=balance_over)
    list(Trainer(alone.model, alone.batches, alone.config, group=group).run(1))
    assert asked == [group] * calls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"aux_weights": {"entrpy": 1e-3}},
            f"there is no auxiliary loss 'entrpy' (did you mean 'entropy'?); {KNOWN}",
        ),
        (
            {"aux_schedule": {"l1": "linear"}, "num_steps": 5},
            f"there is no auxiliary loss 'l1'; {KNOWN}",
        ),
        (
            {"aux_schedule": {"entropy": "linear"}, "num_steps": 5},
            f"aux_schedule names loss 'entropy', which has no weight with router top_k; {WAY_OUT}",
        ),
        (
            {"aux_weights": {"z": 1e-3}, "router": "hash"},
            "the z loss needs logits, and this router gives none; set its weight to 0",
        ),
    ],
)
def test_a_loss_that_cannot_be_is_refused_before_anything_is_written(changes, message, start, tmp_path):
    for folder in (None, tmp_path / "run"):
        with pytest.raises(ValueError) as refused:
            start(folder=folder, **changes)
        assert str(refused.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_router_that_cannot_give_what_the_training_asks_is_not_kept(start, losses_of):
    trainer, plain = start(aux_weights={"z": 1e-3}), start(aux_weights={"z": 1e-3})
    for one in (trainer, plain):
        list(one.run(1))
    with pytest.raises(ValueError, match="the z loss needs logits"):
        trainer.swap(Spec("hash"))
    assert trainer.model.config.router.name == "top_k"
    assert trainer.state.events == ()
    assert losses_of(trainer, 2) == losses_of(plain, 2)
    trainer.swap(Spec("switch"))
    [report] = trainer.run(1)
    assert report.aux_weights == {"balance": 0.01, "z": 1e-3}
