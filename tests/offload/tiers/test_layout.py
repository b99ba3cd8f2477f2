"""Three tiers: the outputs of the resident model, every byte in the ledger, and no expert in two places."""

import random

import pytest
import torch

from workbench.core import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.prefetcher import Observation
from workbench.offload.store.expert_store import DamagedExpert
from workbench.offload.tiers.layout import DEVICE, DISK, HOST

BLOCK = 24 * 1024
# Two slots of the host and a spare one.
SMALL = 3 * BLOCK


@pytest.fixture
def check_tiers(check_books):
    """Everybody is where the engine says, whole, and in one place unless two were asked for."""

    def check(engine: OffloadEngine, *, is_inclusive: bool = False) -> None:
        check_books(engine)
        tier, host, link = engine.residency().flatten(), engine.host, engine.loop.link
        above = engine.loop.cache.slot_of
        assert set((tier == DEVICE).nonzero()[0].tolist()) == set(above)
        assert set((tier == HOST).nonzero()[0].tolist()) == set(host.slot_of) - set(above)
        assert is_inclusive or not set(above) & set(host.slot_of)
        assert len(host.slot_of) <= host.capacity
        store, buffer = engine.store, engine.store.buffer()
        for slots, pool in ((above, engine.pool), (host.slot_of, link.host_pool)):
            for page, slot in slots.items():
                store.read(page, [buffer])
                held = b"".join(bytes(piece) for piece in pool.memory(slot))
                assert held == bytes(buffer[: store.shape.num_bytes])

    return check


@pytest.fixture
def check(checkpoint, opened, steps, resident, assert_same, check_tiers):
    """One model over three tiers: looked at after every step."""

    def run(*, prompts=None, budget="25%", host_budget=SMALL, model=None, **options) -> OffloadEngine:
        folder = checkpoint(**(model or {}))
        offloaded = opened(folder, budget=budget, host_budget=host_budget, **options)
        is_inclusive = options.get("inclusive", False)
        look = lambda done, step: check_tiers(offloaded.engine, is_inclusive=is_inclusive)  # noqa: E731
        assert_same(steps(offloaded.model, prompts, after=look), resident(folder, prompts))
        return offloaded.engine

    return run


def test_every_policy_is_lossless_over_three_tiers(check, policy_name):
    engine = check(policy=Spec(policy_name), prompts=[[5, 6, 7]])
    assert engine.ledger.misses > 0 and engine.ledger.written_bytes > 0


def test_every_policy_of_the_host_is_lossless(check, policy_name):
    engine = check(host_policy=Spec(policy_name), budget="40%", host_budget="30%")
    assert engine.traffic["host to device"].num_bytes > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("host_budget", ["25%", "110%"])
@pytest.mark.parametrize(("budget", "count"), [("25%", 1), ("40%", 3)])
def test_every_budget_batch_and_dtype_is_lossless(check, prompts, budget, host_budget, count, dtype):
    engine = check(budget=budget, host_budget=host_budget, prompts=prompts[:count], model={"dtype": dtype})
    if host_budget == "110%":
        # nobody is read twice.
        assert engine.traffic["disk to device"].num_bytes <= engine.store.num_bytes


@pytest.mark.parametrize("host_budget", [2 * BLOCK, "60%"])
@pytest.mark.parametrize("prefetch", ["markov", "next_layer"])
@pytest.mark.parametrize("inclusive", [False, True])
def test_guesses_and_copies_below_are_lossless(check, host_budget, prefetch, inclusive):
    # three texts ask for whole caches, which leaves a prefetcher that looks ahead nothing to guess.
    options = {"budget": "40%"} if prefetch == "markov" else {"budget": "60%", "prompts": [[5, 6, 7]]}
    engine = check(**options, host_budget=host_budget, prefetch=Spec(prefetch), inclusive=inclusive)
    assert engine.ledger.prefetches > 0


@pytest.mark.slow
@pytest.mark.parametrize("inclusive", [False, True])
def test_every_policy_and_prefetcher_is_lossless_over_three_tiers(
    check, prompts, policy_name, prefetcher_name, inclusive
):
    prefetch = None if prefetcher_name is None else Spec(prefetcher_name)
    for budget, host_budget in ((3 * BLOCK, 2 * BLOCK), ("50%", "40%")):
        for count in (1, 3):
            options = {"budget": budget, "host_budget": host_budget, "prompts": prompts[:count]}
            check(**options, policy=Spec(policy_name), prefetch=prefetch, inclusive=inclusive)


@pytest.mark.parametrize("threads", [1, 3])
def test_experts_of_odd_sizes_come_through_buffers(check, threads):
    model = {"expert_width": 20, "num_experts": 7}
    check(budget="80%", host_budget="30%", prefetch=Spec("markov"), model=model, threads=threads)


def test_a_larger_host_tier_reads_less_from_disk(check):
    # two slots above, which is one token's experts; keys and values need some room as well.
    read = {}
    for host_budget in (2 * BLOCK, 6 * BLOCK, 18 * BLOCK):
        engine = check(budget=3 * BLOCK, host_budget=host_budget, prompts=[[5, 6, 7]])
        read[host_budget] = engine.traffic["disk to device"].num_bytes
    assert read[18 * BLOCK] < read[6 * BLOCK] < read[2 * BLOCK]
    # all experts together: each comes from disk once.
    assert read[18 * BLOCK] <= 16 * BLOCK


def test_inclusive_tiers_write_less_and_hold_fewer(check):
    options = {"budget": "40%", "host_budget": "60%"}
    apart, twice = check(**options), check(**options, inclusive=True)
    assert twice.ledger.written_bytes < apart.ledger.written_bytes
    assert set(twice.host.slot_of) & set(twice.loop.cache.slot_of)
    assert (twice.residency() < DISK).sum() < (apart.residency() < DISK).sum()


def test_a_smaller_cache_sends_its_experts_down(checkpoint, opened, steps, resident, assert_same, check_tiers):
    folder = checkpoint()
    engine = (offloaded := opened(folder, budget="80%", host_budget="100%")).engine
    steps(offloaded.model)
    known = int((engine.residency() < DISK).sum())
    engine.set_capacity(3)
    assert int((engine.residency() < DISK).sum()) == known
    check_tiers(engine)
    read = engine.traffic["disk to device"].num_bytes
    assert_same(steps(offloaded.model), resident(folder))
    check_tiers(engine)
    assert engine.traffic["disk to device"].num_bytes - read <= (16 - known) * BLOCK


def test_events_name_the_bytes_that_went_down(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="25%", host_budget="50%")
    engine, events = offloaded.engine, []
    steps(offloaded.model, [[5, 6, 7]], after=lambda done, step: events.extend(engine.drain(step)))
    assert sum(one.bytes for one in events if one.kind == "evict") == engine.ledger.written_bytes > 0
    assert sum(one.bytes for one in events) == engine.ledger.moved_bytes


@pytest.mark.parametrize("fault", ["error", "short", "flip"])
def test_a_disk_that_fails_gives_an_error_or_the_right_tokens(
    copied, opened, checkpoint, steps, resident, assert_same, check_tiers, disk, fault
):
    offloaded = opened(copied(), budget="40%", host_budget=SMALL, prefetch=Spec("markov"), threads=1)
    draw, outcomes = random.Random(0), set()
    for _ in range(8):
        disk.faults = [fault if draw.random() < 0.3 else None for _ in range(30)]
        try:
            assert_same(steps(offloaded.model), resident(checkpoint()))
            outcomes.add("tokens")
        except (OSError, DamagedExpert):
            outcomes.add("error")
        disk.faults = []
        check_tiers(offloaded.engine)
    assert "error" in outcomes
    assert_same(steps(offloaded.model), resident(checkpoint()))
    check_tiers(offloaded.engine)


def test_an_interrupt_between_two_tiers_serves_no_wrong_expert(
    checkpoint, opened, steps, resident, assert_same, check_tiers, monkeypatch
):
    folder = checkpoint()
    offloaded = opened(folder, budget="40%", host_budget=SMALL, prefetch=Spec("markov"))
    link = offloaded.engine.loop.link
    for name in ("wait", "fetch", "leave"):
        real, left = getattr(link, name), [4]

        def interrupted(*args, real=real, left=left, **words):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(*args, **words)

        monkeypatch.setattr(link, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            steps(offloaded.model)
        monkeypatch.undo()
        assert_same(steps(offloaded.model), resident(folder))
        check_tiers(offloaded.engine)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"host_budget": 2 * BLOCK - 1},
            ValueError,
            r"one of the experts of 24.0 KiB and a spare slot, .* at least 48.0 KiB \(49152 B\), got .* \(49151 B\)",
        ),
        ({"host_budget": "50%", "host_policy": Spec("min")}, ValueError, "min looks into the future"),
        ({"host_budget": "50%", "host_policy": Spec("lruu")}, LookupError, r"did you mean 'lru'"),
        ({"host_budget": "much"}, ValueError, "a budget is bytes, as 64MiB"),
        ({"inclusive": True}, ValueError, "inclusive and host_compute are about a tier in the host: give a host_bud"),
    ],
)
def test_what_cannot_be_a_tier_is_refused(checkpoint, opened, options, error, message):
    with pytest.raises(error, match=message):
        opened(checkpoint(), budget="50%", **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("floats", [1024, 1000])
def test_experts_come_to_a_gpu_over_three_tiers_whole(make_store, inclusive, floats):
    store = make_store(layers=2, experts=8, floats=floats)
    size = store.shape.num_bytes
    config = OffloadConfig(budget=3 * size, host_budget=9 * size + 8192 * 4, inclusive=inclusive)
    engine = OffloadEngine(store, config, top_k=1, device=torch.device("cuda"))
    draw = random.Random(0)
    for _ in range(60):
        layer, expert = draw.randrange(2), draw.randrange(8)
        page = layer * 8 + expert
        for _, slots in engine.serve(Observation(layer, [page], [1], lambda: ()), [0]):
            assert [tensor[slots[0]].unique().tolist() for tensor in engine.pool.tensors] == [[page], [-page]]
    engine.loop.link.settle()
    engine.loop.take_stock()
    assert engine.ledger.moved_bytes == engine.loop.link.moved_bytes
    assert engine.traffic["host to device"].num_bytes > 0
    assert inclusive or not set(engine.loop.cache.slot_of) & set(engine.host.slot_of)
    engine.loop.link.close()
