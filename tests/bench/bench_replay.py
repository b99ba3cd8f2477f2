"""How fast recorded requests go through caches: the general loop of every policy, and the counters of three."""

import resource
import time

import numpy as np

from workbench.core.spec import Spec
from workbench.offload.policies import POLICIES
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


def bench_policies_in_the_general_loop():
    requests = skewed(LOOPED)
    print(f"\n{len(requests):,} requests, {LAYERS} layers of {EXPERTS} experts, {TOP_K} a token, {TEXT} tokens a text")
    print(f"{'policy':24}{'M requests/s':>14}{'us over lru':>13}{'hit rate':>10}  (goals: 0.2, 2)")
    least, hits = dict.fromkeys(POLICIES.names(), float("inf")), {}
    # in turn, and time of this process only: other work on the machine comes and goes.
    for name in [*least] * ROUNDS:
        began = time.process_time()
        hits[name] = replay(requests, policy=Spec(name), capacity=CAPACITY).ledger.hit_rate
        least[name] = min(least[name], time.process_time() - began)
    for name, seconds in least.items():
        over = (seconds - least["lru"]) / len(requests) * 1e6
        print(f"{name:24}{len(requests) / seconds / 1e6:14.3f}{over:13.2f}{hits[name]:10.4f}")


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
