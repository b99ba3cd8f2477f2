"""Measures of runs whose routing is known."""

import math

import pytest
import torch

from workbench.core import Batch, Output, Site, SparseRouting
from workbench.trace import Recorder
from workbench.train.measures import MEASURES, held_out_measures, training_measures


def recorded(experts: list[list[int]], domains: list[int], *, num_experts: int = 4) -> Recorder:
    """A held-out pass in which the tokens of one layer choose these experts."""
    expert = torch.tensor(experts)
    prob = torch.full((len(experts), num_experts), 1 / num_experts)
    routing = SparseRouting.from_topk(expert, torch.ones(expert.shape), num_experts=num_experts, prob=prob)
    site = Site(layer=0, iteration=0, module="blocks.0", router="top_k", routing=routing)
    names = ("one", "two")
    batch = Batch(token_ids=torch.arange(len(experts)).view(1, -1) % 2, domain=torch.tensor([domains]), domains=names)
    recorder = Recorder()
    recorder.add(batch, Output(logits=torch.zeros(1, len(experts), 1), sites=(site,)), phase="prefill", step=1)
    return recorder


def test_an_even_load_has_no_spread_and_no_dead_expert():
    found = held_out_measures(recorded([[i % 4] for i in range(200)], [i % 2 for i in range(200)]).trace())
    assert found["load_cv"] == 0
    assert found["max_over_mean"] == 1
    assert found["dead_experts"] == 0
    assert found["entropy"] == pytest.approx(math.log(4))


def test_one_expert_for_all_is_as_uneven_as_can_be():
    found = held_out_measures(recorded([[2]] * 100, [0, 1] * 50).trace())
    assert found["max_over_mean"] == pytest.approx(4)
    assert found["dead_experts"] == 0.75
    assert found["load_cv"] == pytest.approx(math.sqrt(3))


def test_an_expert_for_each_domain_is_wholly_specialised():
    domains = [0] * 100 + [1] * 100
    found = held_out_measures(recorded([[d] for d in domains], domains).trace())
    assert found["domain_specialisation"] == pytest.approx(1, abs=0.02)
    assert found["token_specialisation"] == pytest.approx(0, abs=0.1)


def test_one_domain_says_nothing_of_specialisation_by_domain():
    found = held_out_measures(recorded([[i % 4] for i in range(100)], [0] * 100).trace())
    assert math.isnan(found["domain_specialisation"])


def test_a_run_has_a_speed_drops_and_a_fluctuation(start):
    trainer = start(router="switch:capacity_factor=0.5")
    for _ in trainer.run(52):
        pass
    found = training_measures(trainer.recorder.trace())
    assert found["tokens_per_second"] > 0
    assert 0 < found["dropped"] < 1
    assert 0 < found["fluctuation"] < 1


def test_a_probe_seen_once_has_no_fluctuation(start):
    trainer = start()
    for _ in trainer.run(2):
        pass
    assert math.isnan(training_measures(trainer.recorder.trace())["fluctuation"])


def test_every_measure_says_what_it_is():
    assert all(measure.text and measure.units and measure.heading for measure in MEASURES.values())
