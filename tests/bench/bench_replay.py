"""How fast recorded requests go through caches: the general loop of every policy, and the counters of three."""

import resource
import time
from itertools import islice

import numpy as np

from workbench.core.spec import Spec
from workbench.offload.cache import ExpertCache
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.replay.counters import count_requests, counter_of
from workbench.offload.replay.scene import replay
from workbench.offload.requests import Requests

LAYERS, EXPERTS, TOP_K, CAPACITY = 16, 64, 8, 256
# an oracle is timed too: it shows what the loop itself costs beside a heap.
LOOPED, COUNTED, LONG = 100_000, 8_000_000, 20_000_000
TEXT, ROUNDS = 32, 5


def skewed(count):
    """So many requests of single tokens, experts drawn without replacement from a Zipf-like distribution."""
    rng = np.random.default_rng(0)
    sets = count // TOP_K // LAYERS * LAYERS
    score = -0.8 * np.log(np.arange(1, EXPERTS + 1))
    page = np.empty((sets, TOP_K), np.int32)
    for low in range(0, sets, 65_536):
        high = min(low + 65_536, sets)
        drawn = (score + rng.gumbel(size=(high - low, EXPERTS))).argpartition(-TOP_K, axis=1)[:, -TOP_K:]
        page[low:high] = np.sort(drawn, axis=1) + (np.arange(low, high) % LAYERS)[:, None] * EXPERTS
    numbers = np.arange(sets)
    return Requests(
        num_layers=LAYERS,
        num_experts=EXPERTS,
        top_k=TOP_K,
        page=page.ravel(),
        count=np.ones(sets * TOP_K, np.int32),
        start=np.arange(sets + 1) * TOP_K,
        layer=(numbers % LAYERS).astype(np.int16),
        token=numbers // LAYERS,
        tokens=np.ones(sets, np.int32),
        is_prefill=np.zeros(sets, np.bool_),
        is_first=numbers // LAYERS % TEXT == 0,
    )


class Heard(CachePolicy):
    """A policy that writes down what it is asked, for another one to be asked the same with nothing around it."""

    def __init__(self, policy, other):
        super().__init__(policy.shape)
        self.policy, self.other, self.calls = policy, other, []

    def touch(self, page):
        raise AssertionError("a cache without a prefetcher asks by sets")

    victim = touch

    def begin_sequence(self):
        self.calls.append((self.other.begin_sequence, ()))
        self.policy.begin_sequence()

    def observe(self, *seen):
        self.calls.append((self.other.observe, seen))
        self.policy.observe(*seen)

    def touch_all(self, pages):
        self.calls.append((self.other.touch_all, (pages,)))
        self.policy.touch_all(pages)

    def place(self, pages, free, pinned, left):
        self.calls.append((self.other.place, (pages, free, pinned, [])))
        self.policy.place(pages, free, pinned, left)


def built(name, requests):
    """A policy that knows what will be asked for if it must."""
    shape = CacheShape(num_layers=LAYERS, num_experts=EXPERTS, capacity=CAPACITY, top_k=TOP_K)
    policy = POLICIES.get(name)(shape)
    if policy.reads_future:
        policy.foresee(requests)
    return policy


def seconds_to_decide(name, requests):
    """Time of this process for the answers of a policy alone."""
    policy = Heard(built(name, requests), built(name, requests))
    cache, taken = ExpertCache(CAPACITY, policy), 0.0
    of_sets = zip(requests.layer.tolist(), requests.is_first.tolist(), requests.demands(), strict=True)
    # some sets at a time: what a policy is asked has only just come to be, as in a loop.
    while some := list(islice(of_sets, 64)):
        for layer, is_first, (pages, counts) in some:
            if is_first and layer == 0:
                policy.begin_sequence()
            policy.observe(layer, pages, counts)
            for _ in cache.step(pages):
                pass
        began = time.process_time()
        for answer, args in policy.calls:
            answer(*args)
        taken += time.process_time() - began
        policy.calls.clear()
    return taken


def bench_policies_in_the_general_loop():
    requests = skewed(LOOPED)
    print(f"\n{len(requests):,} requests, {LAYERS} layers of {EXPERTS} experts, {TOP_K} a token, {TEXT} tokens a text")
    print("goals: 0.2 M requests/s, 2 us; a decision is all that the policy does for a request, without the loop")
    print(f"{'policy':24}{'M requests/s':>14}{'us a decision':>15}{'us over lru':>13}{'hit rate':>10}")
    least, hits = dict.fromkeys(POLICIES.names(), float("inf")), {}
    # in turn, and time of this process only: other work on the machine comes and goes.
    for name in [*least] * ROUNDS:
        began = time.process_time()
        hits[name] = replay(requests, policy=Spec(name), capacity=CAPACITY).ledger.hit_rate
        least[name] = min(least[name], time.process_time() - began)
    for name, seconds in least.items():
        taken = min(seconds_to_decide(name, requests) for _ in range(ROUNDS)), seconds - least["lru"]
        each, over = (one / len(requests) * 1e6 for one in taken)
        rate = len(requests) / seconds / 1e6
        print(f"{name:24}{rate:14.3f}{each:15.2f}{over:13.2f}{hits[name]:10.4f}")


def bench_counters():
    requests = skewed(COUNTED)
    print(f"\n{len(requests):,} requests as above; {counter_of('lru')[1]} (goal: 3 M requests/s)")
    for name in ("lru", "lfu", "min"):
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            count_requests(requests, name, [CAPACITY])
            taken.append(time.perf_counter() - began)
        print(f"{name:6}{len(requests) / min(taken) / 1e6:8.1f} M requests/s")


def bench_memory_of_a_long_trace():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    requests = skewed(LONG)
    for name in ("lru", "lfu", "min"):
        count_requests(requests, name, [CAPACITY])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = (peak - before) * 2**20 / len(requests)
    print(f"\n{len(requests):,} requests: peak {peak:,.0f} MiB, {each:.1f} B a request beyond {before:,.0f} MiB before")
    print(f"100 M requests would take {before / 1024 + each * 100e6 / 2**30:.2f} GiB (goal: 2 GB)")
