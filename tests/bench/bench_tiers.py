"""Decoding over two and three tiers, and with experts that compute in the host, beside the bound of the bytes moved.

On a GPU: layers of the shapes of Mixtral and of Qwen3-30B-A3B, host memory pinned. Without one: a small shape, device =
cpu, and the copy between host and device is a memcpy: that says nothing about a GPU. Weights are random, so routing is
near uniform and hit rates are no finding: what counts is the time for the bytes that were moved. Bytes and stalls are
per token.
"""

import statistics
import time
from functools import partial

import pytest
import torch

from workbench.core.spec import Spec
from workbench.core.units import human_bytes
from workbench.model.config import ModelConfig, preset
from workbench.model.generate import Sampling, generate
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import load, save_model
from workbench.offload.config import OffloadConfig
from workbench.offload.model import open_offloaded
from workbench.offload.tiers.cost import measure_link
from workbench.offload.tiers.pool import SlotPool

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
PROMPT, NEW, ROUNDS = list(range(5, 13)), 16, 5
BUDGET, HOST = "15%", "50%"
ATTENTION = {"num_heads": 32, "num_kv_heads": 4, "head_dim": 128, "vocab_size": 1024, "max_positions": 64}
SHAPES = {
    "4 layers of Mixtral-8x7B": {"width": 4096, "num_layers": 4, "num_experts": 8, "expert_width": 14336, "top_k": 2},
    "12 layers of Qwen3-30B-A3B": {
        "width": 2048,
        "num_layers": 12,
        "num_experts": 128,
        "expert_width": 768,
        "top_k": 8,
    },
}
SMALL = "base:num_experts=32,num_layers=4"
WAYS = {
    "two tiers": {},
    "three tiers": {"host_budget": HOST},
    "three tiers, inclusive": {"host_budget": HOST, "inclusive": True},
    "three tiers, host computes": {"host_budget": HOST, "host_compute": True},
}


def checkpoint(folder, name):
    """A random model on disk; in half precision on a GPU."""
    if name == SMALL:
        model = Transformer(preset(SMALL))
    else:
        shape = dict(SHAPES[name])
        router = Spec("top_k", {"top_k": shape.pop("top_k")})
        model = Transformer(ModelConfig(**shape, **ATTENTION, router=router))
    model = initialise(model, seed=0)
    save_model(model.to(torch.bfloat16) if HAS_GPU else model, folder)


def bound_of(disk, copies, computing, disk_bytes, copied_bytes):
    """Least seconds: disk and copies side by side at their measured speeds, then what the resident model computes."""
    return max(disk_bytes / disk, copied_bytes / copies) + computing


def copy_speed(pool, host):
    """Of an expert from the host [B/s], the quickest of some: what disturbs only slows down."""
    taken = []
    for number in range(8):
        began = time.perf_counter()
        pool.copy(number % 4, host, number % 4)
        taken.append(time.perf_counter() - began)
    return pool.shape.num_bytes / min(taken)


def decode(model):
    """Seconds, and tokens."""
    began, tokens = time.perf_counter(), []
    # drawn, because the likeliest token of random weights is soon always the same.
    for done in generate(model, [PROMPT], Sampling(max_new_tokens=NEW, temperature=2.0), seed=0):
        tokens += done.token_ids.tolist()
    return time.perf_counter() - began, tokens


def counted(engine):
    """What is compared before and after a text."""
    ledger = engine.ledger
    own = (ledger.hits, ledger.requests, ledger.host_computed, ledger.stall_seconds)
    return own, [way.num_bytes for way in engine.traffic.values()]


class Contender:
    """One way to offload, and what its rounds gave."""

    def __init__(self, folder, options):
        self.offloaded = open_offloaded(folder, OffloadConfig(budget=BUDGET, **options), device=DEVICE)
        self.seconds, self.bounds, self.before, self.is_equal = [], [], None, True

    def round(self, bound, expected, *, is_first):
        engine = self.offloaded.engine
        before = counted(engine)
        taken, tokens = decode(self.offloaded.model)
        engine.drain()
        self.is_equal &= tokens == expected
        if is_first:
            # the caches are warm now; what it costs to fill them is not compared.
            self.before = counted(engine)
            return
        disk, *copied = (now - then for now, then in zip(counted(engine)[1], before[1], strict=True))
        self.seconds.append(taken)
        self.bounds.append(bound(disk, sum(copied)))

    def row(self):
        engine = self.offloaded.engine
        (own, ways), (own_before, ways_before) = counted(engine), self.before
        hits, requests, in_host, stall = (now - then for now, then in zip(own, own_before, strict=True))
        per_token = [(now - then) / ROUNDS / NEW for now, then in zip(ways, ways_before, strict=True)]
        moved = " ".join(f"{human_bytes(one):>10}" for one in [*per_token, 0.0, 0.0][:3])
        share = statistics.median(bound / taken for bound, taken in zip(self.bounds, self.seconds, strict=True))
        return (
            f"{hits / requests:8.2f} {in_host / requests:7.2f} {moved} {stall / ROUNDS / NEW * 1000:9.2f} "
            f"{NEW / statistics.median(self.seconds):9.1f} {NEW / min(self.seconds):9.1f} {share:9.2f}"
            f"  {'yes' if self.is_equal else 'no'}"
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SHAPES if HAS_GPU else [SMALL])
def bench_two_and_three_tiers(tmp_path, name):
    checkpoint(tmp_path / "model", name)
    resident = load(tmp_path / "model").to(DEVICE)
    expected = decode(resident)[1]
    alone, speeds = [], []
    contenders = {way: Contender(tmp_path / "model", options) for way, options in WAYS.items()}
    engine = contenders["three tiers"].offloaded.engine
    rule = contenders["three tiers, host computes"].offloaded.engine.host_side.rule
    spare = SlotPool(engine.store.shape, 4, DEVICE)
    host = SlotPool(engine.store.shape, 4, torch.device("cpu"), partner=DEVICE)
    for number in range(ROUNDS + 1):
        cost = measure_link(engine.store, spare, rounds=3, seed=number)
        speeds.append((cost.bytes_per_second, copy_speed(spare, host)))
        alone.append(decode(resident)[0])
        for contender in contenders.values():
            contender.round(partial(bound_of, *speeds[-1], alone[-1]), expected, is_first=number == 0)
    assert all(contender.is_equal for way, contender in contenders.items() if "computes" not in way)
    least = min(alone) / NEW * 1000
    disk, copies = (human_bytes(statistics.median(way)) for way in zip(*speeds, strict=True))
    finding = "" if HAS_GPU else "device = cpu, the copy is a memcpy: no finding about a GPU\n"
    where = torch.cuda.get_device_name() if HAS_GPU else f"{torch.get_num_threads()} threads"
    print(
        f"\n{finding}{name}, {engine.store.shape.parts[0].dtype}, random weights, seed 0, {where}, torch "
        f"{torch.__version__}; {engine.store.num_pages} experts of {human_bytes(engine.store.shape.num_bytes)}, read "
        f"{engine.store.way}; {BUDGET} on the device ({engine.capacity}), {HOST} in the host ({engine.host.capacity}); "
        f"{NEW} tokens, {ROUNDS} rounds in turn; the resident model takes {least:.1f} ms a token at best\n"
        f"disk {disk}/s, copies {copies}/s by medians; {rule}"
    )
    print(
        f"{'':28}{'hits':>8} {'in host':>7} {'disk':>10} {'up':>10} {'down':>10} {'stall ms':>9} {'tokens/s':>9} "
        f"{'at best':>9} {'of bound':>9}  tokens as resident"
    )
    for way, contender in contenders.items():
        print(f"{way:28}{contender.row()}")
        contender.offloaded.close()
