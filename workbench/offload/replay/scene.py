"""What a cache would have done with a recorded routing: the loop of the live engine on a simulated clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from workbench.core.html import facts
from workbench.core.spec import Spec
from workbench.core.units import human_bytes
from workbench.offload.cache import ExpertCache, Wave
from workbench.offload.compute.host_compute import HostRule
from workbench.offload.compute.host_side import HostSide
from workbench.offload.ledger import Ledger
from workbench.offload.loop import Happening, OffloadLoop
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.prefetcher import Guess, Observation, Prefetcher
from workbench.offload.replay.simulated_link import SimulatedLink
from workbench.offload.replay.simulated_tiers import SimulatedTiers
from workbench.offload.requests import Requests
from workbench.offload.running import running_policy
from workbench.offload.tiers.cost import LinkCost
from workbench.offload.tiers.host_tier import HostTier
from workbench.offload.tiers.link import Traffic

__all__ = ["Replay", "Scene", "replay"]

_FREE = LinkCost(bytes_per_second=float("inf"), source="no time is simulated")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The machine that a replay imagines.

    Args:
        block_bytes: of an expert [B]; half of it for experts of half the precision.
        cost: of the link.
        layer_seconds: computation of one layer in one pass, whatever it computes [s].
        token_seconds: more of it for every token [s].
        first_seconds: computation of a pass before its first layer asks: attention, and layers without experts [s].
        host_capacity: experts that fit into a tier in the host, between device and disk; 0 for no such tier.
        host_cost: of the link between host and device; that of disk and device is `cost`.
        host_policy: who leaves that tier; no oracle.
        inclusive: an expert that comes up from the host stays there as well.
        host_rule: who computes in the host instead of coming up, as the live engine decides it; None for nobody.
            The host works while others are on their way; `layer_seconds` are not less for what it takes over.
    """

    block_bytes: int = 1
    cost: LinkCost = field(default_factory=lambda: _FREE)
    layer_seconds: float = 0.0
    token_seconds: float = 0.0
    first_seconds: float = 0.0
    host_capacity: int = 0
    host_cost: LinkCost = field(default_factory=lambda: _FREE)
    host_policy: Spec = field(default_factory=lambda: Spec("lru"))
    inclusive: bool = False
    host_rule: HostRule | None = None

    def __post_init__(self) -> None:
        if self.host_rule is not None and not self.host_capacity:
            raise ValueError("only experts that lie in the host can compute there: give a host_capacity")

    def link(self, shape: CacheShape) -> SimulatedLink | SimulatedTiers:
        """The way into the slots of a cache.

        Raises:
            LookupError: an unknown policy of the host.
            ValueError: arguments that it does not take, or an oracle.
        """
        if not self.host_capacity:
            return SimulatedLink(self.cost, self.block_bytes)
        policy = running_policy(self.host_policy, replace(shape, capacity=self.host_capacity))
        host = HostTier(self.host_capacity, policy, is_inclusive=self.inclusive)
        return SimulatedTiers(host, disk=self.cost, copy=self.host_cost, block_bytes=self.block_bytes)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of it. Simulated: no time here was measured.

    Args:
        policy: with its arguments.
        prefetch: likewise; None for none.
        capacity: experts that fitted.
        ledger: hits, misses and bytes.
        seconds: simulated time [s].
        tokens: tokens of all passes.
        traffic: what went over each way between three tiers; empty for two, where the ledger says it.
    """

    policy: Spec
    prefetch: Spec | None
    capacity: int
    ledger: Ledger
    seconds: float
    tokens: int
    traffic: Mapping[str, Traffic] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Simulated speed [token/s]; NaN where no time was simulated."""
        return self.tokens / self.seconds if self.seconds else float("nan")

    def __str__(self) -> str:
        return f"{self.policy}, {self.prefetch or 'no prefetch'}, {self.capacity} experts: {self.ledger.to_text()}"

    def _repr_html_(self) -> str:
        rows = {
            "policy, prefetch": f"{self.policy}, {self.prefetch or 'none'}",
            "experts that fit": self.capacity,
            "hit rate": f"{self.ledger.hit_rate:.4f} of {self.ledger.requests:,}",
            "moved": human_bytes(self.ledger.moved_bytes),
            "simulated speed": f"{self.tokens_per_second:.1f} tokens/s",
        }
        return facts("Replay", rows, note="simulated from a recorded routing")


def replay(
    requests: Requests,
    *,
    policy: Spec,
    capacity: int,
    prefetch: Spec | None = None,
    scene: Scene | None = None,
    note: Callable[[Happening], None] | None = None,
    served: Callable[[int, Wave], None] | None = None,
) -> Replay:
    """Drive a cache with recorded requests.

    Args:
        capacity: experts that fit.
        note: called with every event; tokens are counted from the first of the trace.
        served: called with the number of the set and every wave in which it is served.

    Raises:
        LookupError: unknown policy or prefetcher, or one that reads what the trace does not hold.
        ValueError: arguments that they do not take, or no room for anything.
    """
    scene = scene or Scene()
    shape = CacheShape(
        num_layers=requests.num_layers, num_experts=requests.num_experts, capacity=capacity, top_k=requests.top_k
    )
    chosen: CachePolicy = policy.build(POLICIES, shape)
    guesses: Prefetcher | None = None if prefetch is None else prefetch.build(PREFETCHERS, shape)
    if guesses is not None and guesses.needs_ahead and requests.ahead is None:
        raise LookupError(
            f"{prefetch} needs a guess of the next layer's experts, and this trace holds none: only a router that "
            "looks ahead (pre_gated) leaves one; take another prefetcher, or run the model offloaded"
        )
    if guesses is not None and guesses.needs_tokens and requests.token_id is None:
        raise LookupError(
            f"{prefetch} reads the tokens of the text, and these requests hold none; take those of a trace"
        )
    for one in (chosen, guesses):
        if one is not None and one.reads_future:
            one.foresee(requests.without_empty_sets())
    if scene.host_rule is not None:
        for spec, one in ((policy, chosen), (prefetch, guesses)):
            if one is not None and one.reads_future:
                raise ValueError(
                    f"{spec} looks into the future, and who will come to the device is not known before it is "
                    "decided who computes in the host; give no host_rule, or one that reads the past"
                )
    link = scene.link(shape)
    loop = OffloadLoop(ExpertCache(capacity, chosen), link, guesses, note=note)
    _run(loop, link, requests, scene, served)
    loop.take_stock()
    return Replay(
        policy=policy,
        prefetch=prefetch,
        capacity=capacity,
        ledger=loop.ledger,
        seconds=link.now(),
        tokens=requests.num_tokens,
        traffic=link.traffic() if isinstance(link, SimulatedTiers) else {},
    )


def _run(
    loop: OffloadLoop,
    link: SimulatedLink | SimulatedTiers,
    requests: Requests,
    scene: Scene,
    served: Callable[[int, Wave], None] | None,
) -> None:
    layers, tokens = requests.layer.tolist(), requests.tokens.tolist()
    begins, first, is_first = requests.start.tolist(), requests.token.tolist(), requests.is_first.tolist()
    layer_seconds, token_seconds = scene.layer_seconds, scene.token_seconds
    token_ids: tuple[int, ...] | None = None
    reads_tokens = loop.prefetcher is not None and loop.prefetcher.needs_tokens
    askers: Sequence[int] = ()
    side = None
    if scene.host_rule is not None and isinstance(link, SimulatedTiers):
        side = HostSide(scene.host_rule, link, loop)
    for number, (pages, counts) in enumerate(requests.demands()):
        # the passes of a chain ask several times in one layer.
        if number == 0 or first[number] != first[number - 1]:
            if is_first[number]:
                loop.begin_sequence()
            if reads_tokens and requests.token_id is not None:
                token_ids = tuple(requests.token_id[first[number] : first[number] + tokens[number]].tolist())
                loop.begin_pass(token_ids)
            link.spend(scene.first_seconds)
        # a layer that asks for nothing is not served, as in the live engine.
        if pages:
            if loop.note is not None:
                askers = _askers(requests, begins[number], len(pages), first[number])
            seen = Observation(layers[number], pages, counts, partial(_ahead, requests, number), token_ids)
            for wave in loop.serve(seen, askers) if side is None else _beside_host(side, loop, link, seen, askers):
                if served is not None:
                    served(number, wave)
        link.spend(layer_seconds + token_seconds * tokens[number])


def _beside_host(
    side: HostSide, loop: OffloadLoop, link: SimulatedLink | SimulatedTiers, seen: Observation, askers: Sequence[int]
) -> Iterator[Wave]:
    """The waves of those that compute on the device; the host computes the others meanwhile."""
    rule, held = side.rule, side.hold(seen.pages, seen.counts)
    asked = list(zip(seen.pages, seen.counts, askers or [-1] * len(seen.pages), strict=True))
    below = [one for one in asked if one[0] in held]

    def compute() -> None:
        while below:
            page, rows, token = below.pop(0)
            link.spend(rule.host_seconds(rows))
            side.computed(page, token, row_bytes=rule.row_bytes * rows)

    above = [one for one in asked if one[0] not in held]
    if above:
        pages, counts, tokens = zip(*above, strict=True)
        yield from loop.serve(seen._replace(pages=pages, counts=counts), tokens, meanwhile=compute)
    compute()
    side.link.let_go(held)


def _askers(requests: Requests, low: int, size: int, first: int) -> Sequence[int]:
    if requests.asker is None:
        return [first] * size
    return [first + place for place in requests.asker[low : low + size].tolist()]


def _ahead(requests: Requests, number: int) -> Sequence[Guess]:
    return [] if requests.ahead is None else [(page, 1.0) for page in requests.ahead[number]]
