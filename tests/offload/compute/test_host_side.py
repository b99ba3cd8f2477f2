"""Experts that compute in the host: the same outputs, no move, and a place in the ledger."""

import math

import pytest
import torch

from workbench.core import Spec
from workbench.offload.compute.host_compute import ComputeCost, HostRule
from workbench.offload.tiers.cost import LinkCost

BLOCK = 24 * 1024


def rule(most_rows: int) -> HostRule:
    """The host computes so many rows of an expert."""
    host = ComputeCost(bytes_per_second=math.inf, flops_per_second=1)
    device = ComputeCost(bytes_per_second=math.inf, flops_per_second=math.inf)
    link = LinkCost(bytes_per_second=1)
    return HostRule(expert_bytes=most_rows + 1, row_flops=1, link=link, host=host, device=device)


@pytest.fixture
def check(checkpoint, opened, steps, resident, assert_same, check_books):
    """One model, part of whose experts compute in the host: outputs, books, and that something did."""

    def run(*, prompts=None, model=None, most_rows=1000, budget="40%", host_budget="60%", **options):
        folder = checkpoint(**(model or {}))
        offloaded = opened(folder, budget=budget, host_budget=host_budget, **options)
        offloaded.engine.compute_on_host(lambda link: rule(most_rows))
        events = []

        def look(done, step):
            events.extend(offloaded.engine.drain(step))
            check_books(offloaded.engine)

        assert_same(steps(offloaded.model, prompts, after=look), resident(folder, prompts))
        return offloaded.engine, events

    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("inclusive", [False, True])
def test_on_one_processor_it_is_bit_for_bit_the_resident_model(check, prompts, dtype, count, inclusive):
    budget = {"budget": 3 * BLOCK} if count == 1 else {}
    engine, _ = check(prompts=prompts[:count], model={"dtype": dtype}, inclusive=inclusive, **budget)
    assert engine.ledger.host_computed > 0


@pytest.mark.parametrize("prefetch", [None, "markov", "next_layer"])
@pytest.mark.parametrize("host_budget", [2 * BLOCK, 3 * BLOCK, "100%"])
def test_it_goes_with_guesses_and_a_small_host(check, prefetch, host_budget):
    engine, _ = check(prefetch=None if prefetch is None else Spec(prefetch), host_budget=host_budget)
    # of one expert in the host nobody can be held: somebody must be able to come down.
    assert (engine.ledger.host_computed > 0) == (host_budget != 2 * BLOCK)


@pytest.mark.parametrize(
    "router", [Spec("top_p"), Spec("expert_choice"), Spec("moepp"), Spec("gshard"), Spec("blockffn")], ids=str
)
def test_any_router_will_do(check, router):
    engine, _ = check(model={"router": router}, budget="50%")
    assert engine.ledger.host_computed > 0


@pytest.mark.parametrize("changes", [{"iterations": 2, "wiring": "chain"}, {"expert_width": 20, "num_experts": 7}])
def test_any_layout_will_do(check, changes):
    engine, _ = check(model=changes, budget="80%", host_budget="70%")
    assert engine.ledger.misses > 0


def test_every_request_is_counted_once_and_events_say_so(check):
    engine, events = check(prompts=[[5, 6, 7]], budget=3 * BLOCK)
    ledger = engine.ledger
    kinds = [event.kind for event in events]
    asked = [kind for kind in kinds if kind != "evict"]
    assert kinds.count("host_compute") == ledger.host_computed > 0
    assert len(asked) == ledger.requests == ledger.hits + ledger.misses + ledger.late + ledger.host_computed
    # host and device share their memory here.
    assert ledger.row_bytes == 0 == sum(event.bytes for event in events if event.kind == "host_compute")
    assert f"{ledger.host_computed} computed in the host" in ledger.to_text()
    # a prompt of three tokens, then one token at a time.
    assert {event.token for event in events if event.kind == "host_compute" and event.step >= 2} <= {4, 5}
    assert {event.token for event in events if event.step == 2 and event.kind != "evict"} == {4}


def test_who_computes_in_the_host_does_not_move(check):
    moved = {}
    for most_rows in (0, 1, 1000):
        engine, _ = check(most_rows=most_rows, host_budget="100%")
        moved[most_rows] = engine.traffic["host to device"].num_bytes
    assert moved[0] > moved[1] > moved[1000] == 0


def test_experts_with_many_rows_move_all_the_same(check):
    _, events = check(most_rows=1, prompts=[[5, 6, 7, 8, 9, 11, 2, 3, 4, 30, 31]])
    assert {event.kind for event in events} >= {"host_compute", "miss"}


def test_who_is_on_the_device_computes_there(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="40%", host_budget="110%", inclusive=True)
    engine = offloaded.engine
    for token in range(20):
        steps(offloaded.model, [[token]])
    engine.compute_on_host(lambda link: rule(1000))
    above, below = set(engine.loop.cache.slot_of), set(engine.host.slot_of)
    assert above & below
    held = engine.host_side.hold(range(16), [1] * 16)
    assert held and set(held) == below - above
    engine.loop.link.let_go(held)


def test_a_disk_that_fails_lets_the_held_go(
    copied, opened, checkpoint, steps, resident, assert_same, check_books, disk
):
    offloaded = opened(copied(), budget="40%", host_budget=3 * BLOCK, threads=1)
    engine = offloaded.engine
    engine.compute_on_host(lambda link: rule(1000))
    for _ in range(6):
        disk.is_broken = True
        with pytest.raises(OSError, match="Input/output"):
            for token in range(60):
                steps(offloaded.model, [[token]])
        disk.is_broken = False
        assert_same(steps(offloaded.model), resident(checkpoint()))
        check_books(engine)
        assert engine.host._pinned == set()
    assert engine.ledger.host_computed > 0


def test_the_badge_says_that_rounding_may_differ(checkpoint, opened):
    plain = opened(checkpoint(), budget="40%", host_budget="50%")
    assert "bit for bit" in plain.engine.badge
    engine = opened(checkpoint(), budget="40%", host_budget="50%", host_compute=True).engine
    assert engine.badge == "same greedy tokens, not bit-exact: experts compute on cpu and in the host"
    assert "not bit-exact" in engine._repr_html_() and "the host computes up to" in engine._repr_html_()
    engine.compute_on_host(None)
    assert engine.host_side is None and "bit for bit" in engine.badge


def test_measured_rules_serve_too(checkpoint, opened, steps, resident, assert_same, check_books):
    offloaded = opened(checkpoint(), budget="40%", host_budget="80%", host_compute=True)
    # before the first token nobody is anywhere.
    assert (offloaded.engine.residency() == 2).all()
    assert_same(steps(offloaded.model), resident(checkpoint()))
    check_books(offloaded.engine)


def test_without_a_host_there_is_nobody_to_compute(checkpoint, opened):
    engine = opened(checkpoint(), budget="40%").engine
    with pytest.raises(ValueError, match="only experts that lie in the host can compute there: give a host_budget"):
        engine.compute_on_host(lambda link: rule(1))
    with pytest.raises(ValueError, match="give a host_budget as well"):
        opened(checkpoint(), budget="40%", host_compute=True)
