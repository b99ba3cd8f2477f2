"""Every prefetcher: valid guesses from the past alone, bytes that add up, and outputs that do not change."""

import inspect
from dataclasses import dataclass, replace

import numpy as np
import pytest

from workbench.core import Spec
from workbench.offload.cache import ExpertCache
from workbench.offload.loop import OffloadLoop
from workbench.offload.path_predictor import train_path_predictor
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CacheShape
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.prefetcher import Observation
from workbench.offload.replay.scene import Scene, replay
from workbench.offload.replay.simulated_link import SimulatedLink
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost
from workbench.trace.synth import synthetic_trace

LAYERS, EXPERTS, TOP_K, BLOCK = 3, 6, 2, 1 << 20
SPEEDS = {"at a crawl": 1e3, "slower than computing": 3e8, "faster": 3e9, "at once": float("inf")}
# Beside the defaults.
VARIANTS = {
    "activation_matrix": [{"distance": "flat", "eamc_capacity": 2}],
    "markov": [{"layers": 2, "keep": 0.9, "most": 3}],
    "next_layer": [{"most": 1}],
    "oracle": [{"distance": LAYERS}],
    "routing_path": [{"reach": 1}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A predictor that has learned a little."""
    where = tmp_path_factory.mktemp("predictor")
    trace = synthetic_trace(num_tokens=64, num_layers=LAYERS, num_experts=EXPERTS, top_k=TOP_K)
    train_path_predictor(trace, where, epochs=1)
    return str(where)


def pytest_generate_tests(metafunc) -> None:
    if "variant" in metafunc.fixturenames:
        found = [(name, args) for name in PREFETCHERS.names() for args in ({}, *VARIANTS.get(name, []))]
        metafunc.parametrize("variant", found, ids=[str(Spec(*one)) for one in found])


@pytest.fixture
def spec(variant, folder) -> Spec:
    name, args = variant
    return Spec(name, {"folder": folder, **args} if name == "routing_path" else args)


def random_requests(seed: int, *, layers: int = LAYERS, passes: int = 20) -> Requests:
    """Texts that begin with a prompt of several tokens; some layers ask for nothing."""
    generator = np.random.default_rng(seed)
    sets, ahead, tokens, is_first = [], [], [], []
    for number in range(passes):
        first = number % 7 == 0
        size = int(generator.integers(2, 6)) if first else 1
        for layer in range(layers):
            asked = generator.choice(EXPERTS, int(min(EXPERTS, TOP_K * size)), False) + layer * EXPERTS
            sets.append(sorted(asked.tolist()) if generator.random() > 0.1 else [])
            coming = generator.choice(EXPERTS, TOP_K, False) + (layer + 1) * EXPERTS
            ahead.append(coming.tolist() if layer + 1 < layers else [])
            tokens.append(size)
            is_first.append(first)
    plain = Requests.of_sets(sets, num_layers=layers, num_experts=EXPERTS)
    counts = generator.integers(1, 4, len(plain.count)).astype(np.int32)
    starts = np.cumsum([0, *tokens[::layers]])[:-1]
    return replace(
        plain,
        top_k=TOP_K,
        count=counts,
        ahead=ahead,
        token=np.repeat(starts, layers),
        tokens=np.array(tokens, np.int32),
        is_first=np.array(is_first),
        token_id=(np.arange(sum(tokens[::layers])) * 7 % 251).astype(np.int32),
    )


def observations(requests: Requests) -> list[tuple[bool, Observation]]:
    """What a running engine sees, with whether a text begins."""
    found = []
    for number, (pages, counts) in enumerate(requests.demands()):
        layer, token = int(requests.layer[number]), int(requests.token[number])
        ids = None
        if requests.token_id is not None:
            ids = tuple(requests.token_id[token : token + int(requests.tokens[number])].tolist())
        ahead = [(page, 1.0) for page in requests.ahead[number]]
        is_first = bool(requests.is_first[number]) and layer == 0
        found.append((is_first, Observation(layer, pages, counts, lambda found=ahead: found, ids)))
    return found


def shape_of(requests: Requests, capacity: int = 6) -> CacheShape:
    sizes = {"num_layers": requests.num_layers, "num_experts": EXPERTS, "top_k": TOP_K}
    return CacheShape(capacity=capacity, **sizes)


def guesses_of(spec: Spec, requests: Requests) -> list[list[tuple[int, float]]]:
    """All guesses, one list per set."""
    prefetcher = spec.build(PREFETCHERS, shape_of(requests))
    if prefetcher.reads_future:
        prefetcher.foresee(requests)
    found = []
    for is_first, seen in observations(requests):
        if is_first:
            prefetcher.begin_sequence()
        prefetcher.learn(seen)
        found.append(list(prefetcher.predict(seen)))
    return found


@dataclass
class Run:
    """A loop that was driven to its end."""

    loop: OffloadLoop
    link: SimulatedLink
    served: list[list[int]]


def run(
    spec: Spec | None, requests: Requests, *, speed: float, capacity: int, policy: str = "lru", seconds: float = 2e-3
) -> Run:
    """As replay runs it, with token ids."""
    shape = shape_of(requests, capacity)
    chosen = Spec(policy).build(POLICIES, shape)
    prefetcher = None if spec is None else spec.build(PREFETCHERS, shape)
    for one in (chosen, prefetcher):
        if one is not None and one.reads_future:
            one.foresee(requests.without_empty_sets())
    link = SimulatedLink(LinkCost(bytes_per_second=speed), BLOCK)
    done = Run(OffloadLoop(ExpertCache(capacity, chosen), link, prefetcher), link, [])
    for is_first, seen in observations(requests):
        if is_first:
            done.loop.begin_sequence()
        if prefetcher is not None and prefetcher.needs_tokens and seen.layer == 0 and seen.token_ids:
            done.loop.begin_pass(seen.token_ids)
        # a layer that asks for nothing is not served.
        pages = [wave.pages for wave in done.loop.serve(seen, [0] * len(seen.pages))] if seen.pages else []
        done.served.append(sorted(page for one in pages for page in one))
        link.spend(seconds)
    done.loop.take_stock()
    return done


def test_a_guess_is_a_page_of_a_layer_to_come(spec):
    requests = random_requests(0)
    some = guesses_of(spec, requests)
    for (_, seen), guesses in zip(observations(requests), some, strict=True):
        pages, sureness = [page for page, _ in guesses], [sure for _, sure in guesses]
        assert all(type(page) is int and 0 <= page < LAYERS * EXPERTS for page in pages)
        # of the running layer only the next token may ask, and it asks again after all others.
        last = seen.layer == LAYERS - 1 or spec.args.get("distance") == LAYERS
        assert all(page // EXPERTS > seen.layer for page in pages) or last
        assert len(set(pages)) == len(pages)
        assert sureness == sorted(sureness, reverse=True)
        assert all(0 < sure <= 1 for sure in sureness)
    assert sum(map(len, some)) > 20


def test_guesses_are_the_same_again_and_do_not_look_ahead(spec):
    requests = random_requests(1)
    whole = guesses_of(spec, requests)
    assert guesses_of(spec, requests) == whole
    if PREFETCHERS.get(spec.name).reads_future:
        return
    half = requests.num_sets // 2
    other = random_requests(2)
    cut = [*list(requests.sets())[:half], *list(other.sets())[half:]]
    changed = Requests.of_sets(cut, num_layers=LAYERS, num_experts=EXPERTS)
    counts = np.concatenate([requests.count[: requests.start[half]], other.count[other.start[half] :]])
    ahead = [*requests.ahead[:half], *other.ahead[half:]]
    same = {name: getattr(requests, name) for name in ("top_k", "token", "tokens", "is_first", "token_id")}
    mixed = guesses_of(spec, replace(changed, count=counts, ahead=ahead, **same))
    assert mixed[:half] == whole[:half]
    # a prefetcher that reads token ids alone sees no difference after that either.
    assert mixed != whole or spec.name == "routing_path"


def test_empty_sets_are_no_trouble(spec):
    requests = Requests.of_sets([[] for _ in range(5 * LAYERS)], num_layers=LAYERS, num_experts=EXPERTS)
    assert all(type(found) is list for found in guesses_of(spec, replace(requests, top_k=TOP_K, ahead=[[]] * 15)))


def test_arguments_are_plain_values(spec):
    parameters = list(inspect.signature(PREFETCHERS.get(spec.name)).parameters.values())
    assert parameters[0].name == "shape"
    assert {one.kind for one in parameters[1:]} <= {inspect.Parameter.KEYWORD_ONLY}
    defaults = [one.default for one in parameters[1:] if one.default is not one.empty]
    assert all(isinstance(value, int | float | str | bool) for value in defaults)
    assert Spec.parse(str(spec)) == spec
    with pytest.raises(ValueError, match="no argument 'nonsense'"):
        Spec(spec.name, {"nonsense": 1}).build(PREFETCHERS, shape_of(random_requests(0)))


@pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS)
def test_every_byte_is_in_the_ledger_and_every_expert_is_served(spec, speed):
    for seed, (capacity, policy) in enumerate([(2, "lru"), (2, "min_bypass"), (7, "lru"), (7, "lfu"), (18, "lru")]):
        requests = random_requests(seed)
        done = run(spec, requests, speed=speed, capacity=capacity, policy=policy)
        ledger = done.loop.ledger
        parts = (ledger.demand_bytes, ledger.useful_bytes, ledger.wasted_bytes, ledger.waiting_bytes)
        assert min(parts) >= 0
        assert sum(parts) == done.link.moved_bytes
        assert done.served == list(requests.sets())
        assert ledger.requests == len(requests)
        assert len(done.loop.cache.slot_of) <= capacity
        assert done.link.now() >= 2e-3 * requests.num_sets


@pytest.mark.parametrize("policy", ["lru", "min_bypass"])
@pytest.mark.parametrize("name", sorted({*PREFETCHERS.names()} - {"routing_path"}))  # that was made for three layers
def test_a_model_of_one_layer_guesses_its_own_layer_again(name, policy):
    requests = random_requests(3, layers=1)
    for speed in SPEEDS.values():
        done = run(Spec(name), requests, speed=speed, capacity=4, policy=policy)
        assert done.loop.ledger.moved_bytes == done.link.moved_bytes
        assert done.served == list(requests.sets())
        assert len({*done.loop.cache.slot_of.values()}) == len(done.loop.cache.slot_of) <= 4


@pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS)
def test_replay_keeps_the_same_books(spec, speed, monkeypatch):
    made = []

    def link(cost: LinkCost, block_bytes: int) -> SimulatedLink:
        made.append(SimulatedLink(cost, block_bytes))
        return made[-1]

    monkeypatch.setattr("workbench.offload.replay.scene.SimulatedLink", link)
    requests = random_requests(4)
    scene = Scene(block_bytes=BLOCK, cost=LinkCost(bytes_per_second=speed), layer_seconds=2e-3)
    done = replay(requests, policy=Spec("lru"), capacity=7, prefetch=spec, scene=scene)
    assert done.ledger.moved_bytes == made[0].moved_bytes > 0
    alone = run(spec, requests, speed=speed, capacity=7)
    assert done.ledger == alone.loop.ledger
    assert done.seconds == alone.link.now()
