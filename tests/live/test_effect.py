"""The causal effect of an expert, against a model whose routers are changed by hand."""

import pytest
import torch

from workbench.core.records import ExpertKey
from workbench.live.effect import NUM_CONTROLS, measure_expert
from workbench.train.forward import training_context
from workbench.train.probe import look_at_probe, probe_loss


def loss_of(trainer, bias):
    trainer.model.steering = bias
    context = training_context(trainer.config, trainer.step)
    loss = probe_loss(*look_at_probe(trainer.model, trainer.batches, context, trainer.precision))
    trainer.model.steering = None
    return loss


def test_it_is_the_loss_of_a_model_that_is_steered_that_way(session):
    for _ in session.train(3, progress=False):
        pass
    trainer, bias = session.trainer, torch.zeros(4, 8)
    effect = measure_expert(trainer, ExpertKey(1, 2))
    assert effect.base_loss == pytest.approx(loss_of(trainer, bias), rel=1e-6)
    for place, change in zip(
        zip(effect.control_layers, effect.control_experts, strict=False), effect.controls, strict=True
    ):
        banned = bias.clone()
        banned[place] = -torch.inf
        assert change == pytest.approx(loss_of(trainer, banned) - effect.base_loss, abs=1e-6)
    bias[1, 2] = -torch.inf
    assert effect.loss == pytest.approx(loss_of(trainer, bias), rel=1e-6)
    assert effect.change == effect.loss - effect.base_loss != 0


def test_the_controls_are_eight_others_of_similar_load_and_the_same_every_time(session):
    effect = measure_expert(session.trainer, ExpertKey(0, 0))
    places = list(zip(effect.control_layers, effect.control_experts, strict=True))
    assert len(set(places)) == NUM_CONTROLS and (0, 0) not in places
    assert measure_expert(session.trainer, ExpertKey(0, 0)) == effect
    assert effect.to_json()["change"] == effect.change


def test_nothing_of_the_run_changes(session):
    before = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    measure_expert(session.trainer, ExpertKey(0, 0))
    assert session.model.steering is None
    assert all(torch.equal(before[name], tensor) for name, tensor in session.model.state_dict().items())


def test_an_expert_that_is_not_there_and_a_router_that_nobody_steers_are_errors(session):
    with pytest.raises(ValueError, match="no expert 9 in layer 0: 4 layers of 8 experts"):
        measure_expert(session.trainer, ExpertKey(0, 9))
    session.swap_router("hash")
    with pytest.raises(ValueError, match="router hash does not let anybody ban an expert"):
        measure_expert(session.trainer, ExpertKey(0, 0))
