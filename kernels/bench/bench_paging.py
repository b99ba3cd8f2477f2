"""The paging kernels beside the plain loop of an OrderedDict, on 16 layers of 64 experts, 8 per token."""

import resource
import time
from collections import OrderedDict
from itertools import pairwise

import numpy as np
from workbench_kernels import paging_counts, paging_events, stack_hits

EXPERTS, LAYERS, TOP_K, SLOTS = 64, 16, 8, 256
PAGES = EXPERTS * LAYERS
TOKENS, TOKENS_OF_THE_LOOP = 20_000, 2_000


def requests(tokens):
    """Draws by Zipf's law with exponent 0.8, in an order of its own for each layer."""
    generator = np.random.default_rng(0)
    share = np.log(np.arange(1, EXPERTS + 1) ** -0.8)
    order = np.stack([generator.permutation(EXPERTS) for _ in range(LAYERS)])
    page = np.empty((tokens, LAYERS, TOP_K), np.int32)
    for first in range(0, tokens, 1000):
        part = page[first : first + 1000]
        noisy = share + generator.gumbel(size=(len(part), LAYERS, EXPERTS))
        chosen = np.take_along_axis(order[None], np.argpartition(-noisy, TOP_K - 1)[..., :TOP_K], -1)
        part[:] = np.sort(chosen) + np.arange(LAYERS)[:, None] * EXPERTS
    return page.ravel(), np.arange(0, page.size + 1, TOP_K)


def plain_lru(page, start, capacity):
    cache, hits, pages = OrderedDict(), 0, page.tolist()
    for low, high in pairwise(start.tolist()):
        missing = []
        for one in pages[low:high]:
            if one in cache:
                cache.move_to_end(one)
                hits += 1
            else:
                missing.append(one)
        for one in missing:
            if len(cache) == capacity:
                cache.popitem(last=False)
            cache[one] = None
    return hits


def seconds(run, rounds=3):
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


def bench_paging_against_a_plain_loop():
    page, start = requests(TOKENS)
    few, few_start = page[: TOKENS_OF_THE_LOOP * LAYERS * TOP_K], start[: TOKENS_OF_THE_LOOP * LAYERS + 1]
    loop = len(few) / seconds(lambda: plain_lru(few, few_start, SLOTS)) / 1e6
    hits = paging_counts(few, few_start, [SLOTS], num_pages=PAGES, policy="lru")[0]
    assert hits.tolist() == [plain_lru(few, few_start, SLOTS)]
    print(
        f"\ncpu, 1 thread, {len(page) / 1e6:.1f} M requests in sets of {TOP_K}, {LAYERS} layers x {EXPERTS} experts, "
        f"{SLOTS} slots, seed 0; least of 3\n{'':46}{'M requests/s':>14}{'times the loop':>16}"
    )
    print(f"{'OrderedDict loop, lru':46}{loop:14.2f}{1:16.1f}")
    sizes = range(64, PAGES + 1, 64)
    whole = np.array([0, len(few_start) - 1])
    for policy in ("lru", "lfu", "min"):
        runs = {
            f"paging_counts, {policy}": (
                1,
                lambda p=policy: paging_counts(page, start, [SLOTS], num_pages=PAGES, policy=p),
            ),
            f"paging_counts, {policy}, each of 16 capacities": (
                16,
                lambda p=policy: paging_counts(few, few_start, sizes, num_pages=PAGES, policy=p),
            ),
            f"paging_events, {policy}": (
                1,
                lambda p=policy: paging_events(page, start, SLOTS, num_pages=PAGES, policy=p),
            ),
            f"stack_hits, {policy}, each of 1024 capacities": (
                PAGES,
                lambda p=policy: stack_hits(few, few_start, whole, num_pages=PAGES, policy=p),
            ),
        }
        for name, (times, run) in runs.items():
            asked = len(page) if "capacities" not in name else len(few)
            speed = asked * times / seconds(run) / 1e6
            print(f"{name:46}{speed:14.2f}{speed / loop:16.1f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
