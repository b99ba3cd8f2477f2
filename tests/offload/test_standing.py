"""What is said of an engine: room, budgets and experts by tier."""

import json

import numpy as np

from workbench.core import Spec
from workbench.core.units import human_bytes
from workbench.offload.standing import experts_in, room_words, standing


def test_experts_are_counted_by_the_name_of_their_tier():
    assert experts_in(np.array([[0, 2, 2], [1, 2, 0]], np.int8)) == {"device": 2, "host": 1, "disk": 3}


def test_two_tiers_of_a_cpu_are_the_memory_of_the_host_and_the_disk(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="50%", policy=Spec("lfu"), prefetch=Spec("markov"))
    engine, before = offloaded.engine, offloaded.facts()
    assert room_words(engine) == f"room for 8 of 16 experts, read {engine.store.way}"
    assert before["experts"] == {"device": 0, "host": 0, "disk": 16} and before["hit_rate"] is None
    steps(offloaded.model)
    facts = standing(engine, experts_in(engine.residency()))
    assert (facts["near"], facts["room"]) == ("host", {"host": engine.capacity})
    assert facts["budgets"] == {"host": human_bytes(engine.budget_bytes)}
    assert (facts["slots"], facts["least_slots"], facts["most_slots"], facts["all_slots"]) == (
        engine.capacity,
        2,
        16,
        16,
    )
    assert (facts["policy"], facts["prefetcher"], facts["host_policy"]) == ("lfu", "markov", None)
    assert 0 < facts["experts"]["host"] <= engine.capacity and facts["pages_each"] is None
    assert facts["requests"] == engine.ledger.requests and facts["hit_rate"] == engine.ledger.hit_rate
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_tier_in_the_host_has_its_own_budget_and_policy(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="30%", host_budget="50%", host_policy=Spec("lifo"), inclusive=True)
    engine = offloaded.engine
    assert room_words(engine).endswith("; room for 7 more in the host (policy lifo, inclusive)")
    steps(offloaded.model)
    facts = standing(engine, experts_in(engine.residency()))
    assert (facts["near"], facts["room"]) == ("device", {"device": engine.capacity, "host": 7})
    assert facts["budgets"]["host"] == human_bytes(0.5 * engine.store.dense_bytes)
    assert (facts["host_policy"], facts["is_inclusive"], facts["host_computed"]) == ("lifo", True, None)


def test_pages_that_nobody_asks_for_need_no_room(checkpoint, opened):
    engine = opened(checkpoint(), budget="100%", format=Spec("int4", {"levels": 2}), mean_levels=1.5).engine
    facts = standing(engine, experts_in(engine.residency()))
    assert engine.capacity == 32, "pages of the store"
    assert (facts["slots"], facts["most_slots"], facts["all_slots"], facts["pages_each"]) == (24, 24, 24, 1.5)
    assert facts["least_slots"] == engine.top_k and facts["room"] == {"host": 24}
    assert room_words(engine).startswith("room for 24 of 24 pages of experts, 1.5 an expert, read ")
