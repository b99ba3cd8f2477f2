"""Replays: what the live engine did, on another clock."""

import json
import math
import threading
import time

import numpy as np
import pytest

from workbench.core import Spec
from workbench.model.generate import Sampling, generate
from workbench.offload.compute.host_compute import ComputeCost, HostRule
from workbench.offload.loop import OffloadLoop
from workbench.offload.path_predictor import train_path_predictor
from workbench.offload.replay.recorded import requests_of
from workbench.offload.replay.scene import Replay, Scene, replay
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost
from workbench.trace import Recorder
from workbench.trace.convert import from_arrays

SETS = [[0, 1], [2, 3], [0, 1], [2, 4], [0, 3], [1, 2]]


@pytest.fixture
def live(checkpoint, opened):
    """Writes with an offloaded model: the trace, the events, the engine and the seconds that it took."""

    def write(prompts, *, tokens=6, budget="60%", policy="lru", threads=2, rule=None, tiers=None, **model):
        offloaded = opened(checkpoint(**model), budget=budget, policy=Spec(policy), threads=threads, **(tiers or {}))
        if rule is not None:
            offloaded.engine.compute_on_host(lambda link: rule)
        # keys and values are none of the replay's business.
        offloaded.engine.share_budget = lambda other: None
        recorder = Recorder(attrs={"model": json.dumps(offloaded.model.config.to_json())})
        events = []
        began = time.perf_counter()
        for prompt in prompts:
            for step in generate(offloaded.model, prompt, Sampling(max_new_tokens=tokens, temperature=0)):
                recorder.add(step.batch, step.output, phase=step.phase, step=0)
                events += offloaded.engine.drain()
        seconds = time.perf_counter() - began
        return recorder.trace(), events, offloaded.engine, seconds

    return write


def told(events) -> list[tuple[int, int, int, str]]:
    return [(event.token, event.key.layer, event.key.expert, event.kind) for event in events]


def replayed(trace, engine, policy: str = "lru", **options) -> tuple[Replay, list[tuple[int, int, int, str]]]:
    events = []
    scene = options.pop("scene", Scene(block_bytes=engine.store.shape.stride))
    result = replay(
        requests_of(trace), policy=Spec(policy), capacity=engine.capacity, scene=scene, note=events.append, **options
    )
    keys = [engine.shape.key(event.page) for event in events]
    return result, [(e.token, key.layer, key.expert, e.kind) for e, key in zip(events, keys, strict=True)]


def test_every_event_of_the_live_run_happens_in_the_replay(live, policy_name):
    texts = [[[5, 6, 7, 8]], [[9, 1], [10, 11, 50]]]
    trace, events, engine, _ = live(texts, policy=policy_name, tokens=4)
    result, again = replayed(trace, engine, policy_name)
    assert {kind for *_, kind in again} == {"hit", "miss", "evict"}
    assert again == told(events)
    ours, theirs = result.ledger, engine.ledger
    assert (ours.hits, ours.misses, ours.evictions) == (theirs.hits, theirs.misses, theirs.evictions)
    assert ours.moved_bytes == ours.demand_bytes == theirs.demand_bytes


@pytest.mark.parametrize(
    "model",
    [
        {"iterations": 2, "wiring": "chain"},
        {"router": Spec("adamoe")},
        {"router": Spec("gshard")},
        {"router": Spec("top_p")},
    ],
    ids=["chain", "adamoe", "gshard", "top_p"],
)
@pytest.mark.parametrize("policy", ["lru", "least_stale"])
def test_other_models_agree_as_well(live, model, policy):
    trace, events, engine, _ = live([[[5, 6, 7]], [[9], [3, 4]]], policy=policy, **model)
    assert replayed(trace, engine, policy)[1] == told(events)


def test_the_time_is_within_a_tenth_of_the_live_run_where_stalls_dominate(live, disk):
    # a read sleeps 0.1 s, against which a late wake-up on a busy machine is small; the disk is one channel.
    disk.seconds, disk.turn = 0.1, threading.Lock()
    trace, _, engine, seconds = live([[[5, 6, 7]]], tokens=5, budget="20%", threads=1)
    size = engine.store.shape.stride
    stalled, requests = engine.ledger.stall_seconds, requests_of(trace)
    scene = Scene(
        block_bytes=size,
        cost=LinkCost(bytes_per_second=size / disk.seconds),
        layer_seconds=(seconds - stalled) / requests.num_sets,
    )
    result, _ = replayed(trace, engine, scene=scene)
    assert result.ledger.stall_seconds == pytest.approx(len(disk.reads) * 0.1)
    assert stalled > 1.2
    assert result.seconds == pytest.approx(seconds, rel=0.1)


def host_rule(most_rows: int, **changes) -> HostRule:
    """The host computes up to so many rows of an expert: a row takes it a second, a move one more than that."""
    quick = ComputeCost(bytes_per_second=math.inf, flops_per_second=math.inf)
    slow = ComputeCost(bytes_per_second=math.inf, flops_per_second=1)
    cost = LinkCost(bytes_per_second=1)
    return HostRule(expert_bytes=most_rows + 1, row_flops=1, link=cost, host=slow, device=quick, **changes)


@pytest.mark.parametrize("most_rows", [0, 1, 1000])
@pytest.mark.parametrize(("policy", "inclusive"), [("lru", False), ("least_stale", True)])
def test_the_replay_computes_in_the_host_what_the_live_run_does(live, most_rows, inclusive, policy):
    texts, rule = [[[5, 6, 7, 8, 9, 11, 2]], [[9, 1], [10, 11, 50]]], host_rule(most_rows)
    tiers = {"host_budget": "40%", "inclusive": inclusive}
    trace, events, engine, _ = live(texts, policy=policy, rule=rule, tiers=tiers, budget="40%")
    scene = Scene(
        block_bytes=engine.store.shape.num_bytes,
        host_capacity=engine.host.capacity,
        inclusive=inclusive,
        host_rule=rule,
    )
    result, again = replayed(trace, engine, policy, scene=scene)
    assert again == told(events)
    kinds = [kind for *_, kind in again]
    assert (kinds.count("host_compute") > 0) == (most_rows > 0)
    ours, theirs = result.ledger, engine.ledger
    assert (ours.host_computed, ours.misses, ours.written_bytes) == (
        theirs.host_computed,
        theirs.misses,
        theirs.written_bytes,
    )
    assert {name: way.num_bytes for name, way in result.traffic.items()} == {
        name: way.num_bytes for name, way in engine.traffic.items()
    }


def test_the_host_computes_while_others_are_on_their_way():
    # from disk 10 s, up from the host 4 s and down to it 4 s; a row takes the host 3 s.
    rule = HostRule(
        expert_bytes=100,
        row_flops=3,
        row_bytes=2,
        link=LinkCost(bytes_per_second=25),
        host=ComputeCost(bytes_per_second=math.inf, flops_per_second=1),
        device=ComputeCost(bytes_per_second=math.inf, flops_per_second=math.inf),
    )
    scene = Scene(
        block_bytes=100,
        cost=LinkCost(bytes_per_second=10),
        host_cost=LinkCost(bytes_per_second=25),
        host_capacity=2,
        host_rule=rule,
    )

    def seconds(sets) -> tuple[float, int]:
        result = replay(Requests.of_sets(sets, num_experts=4), policy=Spec("lru"), capacity=1, scene=scene)
        assert result.ledger.row_bytes == 2 * result.ledger.host_computed
        return result.seconds, result.ledger.host_computed

    # 1 sends 0 down, beside the disk: two reads.
    assert seconds([[0], [1]]) == (20, 0)
    # 0 is in the host and stays: 3 s instead of 4 s and more.
    assert seconds([[0], [1], [0]]) == (23, 1)
    # while 2 comes from disk for 10 s the host computes 0.
    assert seconds([[0], [1], [0, 2]]) == (30, 1)


def test_nobody_sees_a_future_in_which_the_host_computes():
    scene = Scene(host_capacity=2, host_rule=host_rule(1))
    requests = Requests.of_sets(SETS)
    with pytest.raises(ValueError, match="min looks into the future, and who will come"):
        replay(requests, policy=Spec("min"), capacity=2, scene=scene)
    with pytest.raises(ValueError, match="oracle looks into the future"):
        replay(requests, policy=Spec("lru"), prefetch=Spec("oracle"), capacity=2, scene=scene)
    with pytest.raises(ValueError, match="give a host_capacity"):
        Scene(host_rule=host_rule(1))


def test_the_numbers_of_the_card_come_out():
    # arXiv 2210.02775 in batched steps: LRU 12, 10, 7 and 5 misses, the optimum 12, 8, 6 and 5.
    requests = Requests.of_sets(SETS)
    for capacity, lru, least in ((2, 12, 12), (3, 10, 8), (4, 7, 6), (5, 5, 5)):
        assert replay(requests, policy=Spec("lru"), capacity=capacity).ledger.misses == lru
        assert replay(requests, policy=Spec("min"), capacity=capacity).ledger.misses == least


@pytest.mark.parametrize("policy", ["min", "min_bypass", "discard_bits", "phase_bits", "lru"])
def test_a_layer_that_asks_for_nothing_changes_nothing(policy):
    with_gaps = [[], *SETS[:2], [], [], *SETS[2:], []]
    for capacity in (2, 3):
        plain, gaps = (
            replay(Requests.of_sets(sets), policy=Spec(policy), capacity=capacity, prefetch=Spec("oracle")).ledger
            for sets in (SETS, with_gaps)
        )
        assert plain == gaps


def test_perfect_overlap_gains_at_most_a_factor_of_two():
    # a cycle in which every set misses: 1 s of computation, 1 s of reading.
    requests = Requests.of_sets([[0], [1], [2], [3]] * 10, num_layers=1, num_experts=4)
    scene = Scene(block_bytes=8, cost=LinkCost(bytes_per_second=8), layer_seconds=1.0)
    plain = replay(requests, policy=Spec("lru"), capacity=3, scene=scene)
    ahead = replay(requests, policy=Spec("lru"), capacity=3, scene=scene, prefetch=Spec("oracle"))
    assert plain.seconds == 80.0
    assert plain.tokens_per_second == 0.5
    assert 41.0 <= ahead.seconds < 60.0
    assert ahead.ledger.moved_bytes >= plain.ledger.moved_bytes


def test_without_computation_a_perfect_guess_saves_nothing():
    requests = Requests.of_sets([[0], [1], [2], [3]] * 5, num_layers=1, num_experts=4)
    scene = Scene(block_bytes=8, cost=LinkCost(bytes_per_second=8))
    plain = replay(requests, policy=Spec("min"), capacity=3, scene=scene)
    ahead = replay(requests, policy=Spec("lru"), capacity=3, scene=scene, prefetch=Spec("oracle"))
    assert ahead.seconds >= plain.seconds == plain.ledger.misses


@pytest.fixture(scope="module")
def told_ways(tmp_path_factory) -> tuple[Requests, Spec]:
    """Words that say their ways through two layers, and a predictor that has learned them."""
    ids = np.random.default_rng(0).integers(0, 6, 400)
    paths = np.stack([ids, (ids + 1) % 6], 1)[:, :, None]
    trace, where = from_arrays(ids, paths, num_experts=6), tmp_path_factory.mktemp("predictor")
    assert train_path_predictor(trace, where, window=1, learning_rate=2e-2).recall > 0.95
    return requests_of(trace, passes="token"), Spec("routing_path", {"folder": str(where)})


def test_the_first_layer_is_guessed_from_the_tokens_before_it_asks(told_ways, monkeypatch):
    requests, prefetch = told_ways

    def hit_rates(**seconds) -> list[float]:
        events = []
        scene = Scene(block_bytes=8, cost=LinkCost(bytes_per_second=8), layer_seconds=1.0, **seconds)
        replay(requests, policy=Spec("lru"), capacity=4, prefetch=prefetch, scene=scene, note=events.append)
        asked = [event for event in events if event.kind != "evict"]
        kinds = [[event.kind for event in asked if event.page // 6 == layer] for layer in (0, 1)]
        return [sum(kind in ("hit", "prefetch") for kind in one) / len(one) for one in kinds]

    told = hit_rates(first_seconds=1.0)
    assert min(told) > 0.9
    # without a moment before the first layer its experts are on their way, and late.
    assert hit_rates()[0] < 0.5
    monkeypatch.setattr(OffloadLoop, "begin_pass", lambda self, token_ids: None)
    alone = hit_rates(first_seconds=1.0)
    assert alone[0] < 0.5 < 0.9 < alone[1]


def test_time_before_the_first_layer_is_spent_once_a_pass():
    requests = Requests.of_sets([[0], [3], [0], [3]], num_layers=2, num_experts=3)
    assert replay(requests, policy=Spec("lru"), capacity=2, scene=Scene(first_seconds=2.0)).seconds == 4.0


def test_where_no_time_is_simulated_guesses_are_there_at_once():
    requests = Requests.of_sets([[0], [1], [2], [3]] * 5, num_layers=1, num_experts=4)
    ahead = replay(requests, policy=Spec("lru"), capacity=3, prefetch=Spec("oracle"))
    assert ahead.ledger.late == 0 and ahead.ledger.misses < 20
    assert ahead.tokens_per_second != ahead.tokens_per_second


def test_what_the_trace_does_not_hold_cannot_be_replayed():
    requests = Requests.of_sets(SETS)
    with pytest.raises(
        LookupError, match="next_layer needs a guess of the next layer's experts, and this trace holds none"
    ):
        replay(requests, policy=Spec("lru"), capacity=2, prefetch=Spec("next_layer"))
    with pytest.raises(LookupError, match="has no 'lruu'"):
        replay(requests, policy=Spec("lruu"), capacity=2)
    with pytest.raises(ValueError, match="at least one slot, got 0"):
        replay(requests, policy=Spec("lru"), capacity=0)


def test_a_text_begins_once_in_a_pass(monkeypatch, live):
    from workbench.offload.policies.lru import LRU

    trace, _, engine, _ = live([[[5, 6]], [[7]]], iterations=2, wiring="chain", tokens=3)
    begun = []
    monkeypatch.setattr(LRU, "begin_sequence", lambda self: begun.append(self))
    replayed(trace, engine)
    assert len(begun) == 2


def test_it_is_said_in_words():
    result = replay(Requests.of_sets(SETS), policy=Spec("lru"), capacity=3)
    assert str(result).startswith("lru, no prefetch, 3 experts: hit rate 0.167 of 12 requests")
    assert "simulated from a recorded routing" in result._repr_html_()
