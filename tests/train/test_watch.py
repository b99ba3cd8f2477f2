"""A shadow beside a run: it learns to agree, and the run is bit-equal to one without it."""

from dataclasses import replace

import pytest
import torch

from workbench.core import SparseRouting, Spec
from workbench.train.optim import named_states
from workbench.train.watch import Watch, imitation, watch_of


def run(trainer, steps):
    found = [report.loss for report in trainer.run(steps)]
    return found, {**trainer.model.state_dict(), **named_states(trainer.model, trainer.optimizer)}


def watch(trainer, router):
    trainer.watch = watch_of(trainer.model.config, trainer.config, router)
    return trainer.watch


@pytest.mark.parametrize("router", ["switch", "top_k", "hash", "expert_choice"])
def test_a_watched_run_is_bit_equal_to_one_that_is_not(start, router, assert_same_bits):
    plain, watched = start(), start()
    watch(watched, router)
    (losses, weights), (same_losses, same_weights) = run(plain, 4), run(watched, 4)
    assert losses == same_losses
    assert_same_bits(same_weights, weights)


def test_a_learning_shadow_comes_to_agree(start):
    trainer = start()
    # a hash is fixed, so that there is something to come near to.
    trainer.swap(Spec("hash"))
    shadow = watch(trainer, "top_k:balance=0.0")
    seen = []
    for _ in trainer.run(80):
        seen.append(shadow.imitation_loss)
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5])


def test_its_decisions_are_in_the_trace_beside_the_active_ones(start):
    trainer = start()
    watch(trainer, "switch")
    for _ in trainer.run(2):
        pass
    sites = trainer.recorder.trace()["routing"]
    shadows = sites["is_shadow"].values.astype(bool)
    assert shadows.any()
    assert set(sites["router"].values[shadows]) == {"switch"}
    assert set(sites["router"].values[~shadows]) == {"top_k"}


def test_a_loaded_shadow_keeps_its_weights_and_decides_as_its_model_would(start, tmp_path):
    trainer = start(folder=tmp_path / "a")
    for _ in trainer.run(2):
        pass
    trainer.close()
    other = start()
    for _ in other.run(2):
        pass
    found = watch(other, tmp_path / "a")
    assert (found.kind, found.shadow.name) == ("loaded", "top_k")
    before = {name: tensor.clone() for name, tensor in found.shadow.state_dict().items()}
    for _ in other.run(3):
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in found.shadow.state_dict().items())
    own = [layer.router.gate.weight for layer in trainer.model.moe_layers()]
    assert all(torch.equal(a, b.gate.weight) for a, b in zip(own, found.shadow.routers, strict=True))


def test_a_checkpoint_of_another_shape_is_refused(start, tmp_path):
    trainer = start(folder=tmp_path / "a")
    trainer.close()
    config = trainer.model.config
    with pytest.raises(ValueError, match=r"the shadow must fit the model: num_experts is 5 here and 4 in"):
        Watch.loaded(replace(config, num_experts=5), tmp_path / "a")


def test_unknown_names_and_arguments_are_refused(start):
    trainer = start()
    with pytest.raises(LookupError, match="did you mean 'switch'"):
        watch(trainer, "swich")
    with pytest.raises(ValueError, match="did you mean 'top_k'"):
        watch(trainer, "top_k:topk=1")


def test_imitation_is_the_cross_entropy_of_the_active_shares():
    active = SparseRouting.from_topk(torch.tensor([[0, 1]]), torch.tensor([[0.75, 0.25]]), num_experts=3)
    prob = torch.tensor([[0.5, 0.25, 0.25]], requires_grad=True)
    shadow = SparseRouting.from_topk(torch.tensor([[2, 1]]), torch.ones(1, 2), num_experts=3, prob=prob)
    expected = -(0.75 * torch.tensor(0.5).log() + 0.25 * torch.tensor(0.25).log())
    torch.testing.assert_close(imitation(shadow, active), expected)
    blind = SparseRouting.from_topk(torch.tensor([[2, 1]]), torch.ones(1, 2), num_experts=3)
    assert imitation(blind, active) is None
