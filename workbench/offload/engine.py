"""The live engine: a store on disk, slots in memory, and the loop between them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.core.html import facts
from workbench.core.records import CacheEvent
from workbench.core.spec import Spec
from workbench.core.units import human_bytes
from workbench.offload.cache import ExpertCache
from workbench.offload.compute.host_compute import HostRule
from workbench.offload.compute.host_side import HostSide
from workbench.offload.config import OffloadConfig, budget_bytes
from workbench.offload.event_log import EventLog
from workbench.offload.ledger import Ledger
from workbench.offload.loop import OffloadLoop
from workbench.offload.policy import CacheShape
from workbench.offload.precision.decoder import Decoder
from workbench.offload.precision.plan import Precision
from workbench.offload.prefetcher import Observation
from workbench.offload.running import running_policy, running_prefetcher
from workbench.offload.store.expert_store import ExpertStore
from workbench.offload.tiers.capacity import device_capacity
from workbench.offload.tiers.host_tier import HostTier
from workbench.offload.tiers.layout import buffer_bytes, open_link, tiers_of
from workbench.offload.tiers.link import Traffic
from workbench.offload.tiers.pool import SlotPool
from workbench.offload.tiers.tiered_link import TieredLink

__all__ = ["OffloadEngine"]


@final
class OffloadEngine:
    """The experts of one model under a budget, shared by its layers. For one forward pass at a time.

    Args:
        store: all experts.
        config: budget, policy, prefetcher.
        top_k: experts that one token asks for in a layer, at most.
        device: where the experts compute.

    Attributes:
        top_k: pages that one token asks for in a layer, at most: as many as experts where an expert is one page.
        precision: which pages experts are put together from.
        decoder: where they are put together; None where the pages compute themselves.
        policy: who leaves, as it is now.
        prefetcher: who is guessed, as it is now; None for nobody.
        host_policy: who leaves the host's tier, where there is one.
        host_budget_bytes: of that tier [B]; None where there is none.
        pool: the slots; as much memory as the budget allows is ever touched.
        loop: cache, link and ledger.
        events: what happened since somebody last asked; bounded.
        host_side: the host as a place where experts compute; None if they do not.

    Raises:
        ValueError: a budget that does not hold one token's experts (the message says the least that does), or an
            oracle as policy or prefetcher.
        LookupError: an unknown policy or prefetcher.
    """

    def __init__(self, store: ExpertStore, config: OffloadConfig, *, top_k: int, device: torch.device):
        self.store, self.device = store, device
        self.precision = Precision(store.encoding, config, num_layers=store.num_layers, num_experts=store.num_experts)
        self.top_k = self.precision.most_pages(top_k)
        self.decoder = None if self.precision.format.is_lossless else Decoder(self.precision, top_k, device)
        self.policy, self.prefetcher, self.host_policy = config.policy, config.prefetch, config.host_policy
        self.budget_bytes = budget_bytes(config.budget, store.dense_bytes)
        host_budget = config.host_budget
        self.host_budget_bytes = None if host_budget is None else budget_bytes(host_budget, store.dense_bytes)
        self._other_bytes = 0
        self._token, self._pass_tokens, self._newest, self._is_told = 0, 0, (store.num_layers, 0), False
        is_host = device.type == "cpu"
        self._overhead = buffer_bytes(store, config, device) if is_host else 0
        self._overhead += 0 if self.decoder is None else self.decoder.num_bytes
        capacity = self._capacity(self.budget_bytes)
        # on a CPU slots that are never used cost no memory, so that the budget may grow later.
        self.pool = SlotPool(store.shape, store.num_pages if is_host else capacity, device)
        self.shape = CacheShape(
            num_layers=store.num_layers, num_experts=store.pages_per_layer, capacity=capacity, top_k=self.top_k
        )
        cache = ExpertCache(capacity, running_policy(config.policy, self.shape))
        prefetcher = None if config.prefetch is None else running_prefetcher(config.prefetch, self.shape)
        self._link = open_link(store, self.pool, config, self.shape)
        self.events = EventLog(self.precision.key)
        self.host_side: HostSide | None = None
        self.loop = OffloadLoop(cache, self._link, prefetcher, note=self.events.note)

    @property
    def ledger(self) -> Ledger:
        """What was moved."""
        return self.loop.ledger

    @property
    def tokens_before(self) -> int:
        """Tokens of the passes before this one, since they were counted from 0."""
        return self._token

    @property
    def capacity(self) -> int:
        """Experts that fit now."""
        return self.loop.cache.capacity

    @property
    def host(self) -> HostTier | None:
        """Who lies in the memory of the host; None where there is no such tier."""
        return self._link.host if isinstance(self._link, TieredLink) else None

    @property
    def traffic(self) -> Mapping[str, Traffic]:
        """Bytes and seconds of every way between two tiers."""
        return self._link.traffic()

    @property
    def resident_bytes(self) -> int:
        """Memory of the experts that are held, and of the buffers of the readers [B]."""
        return len(self.loop.cache.slot_of) * self.store.shape.num_bytes + self._overhead

    def begin_pass(self, layer: int, iteration: int, tokens: int, *, is_prompt: bool) -> None:
        """A layer is about to ask: a lower place than the last means that a new pass began."""
        if (layer, iteration) <= self._newest:
            self._token += self._pass_tokens
            self._pass_tokens = tokens
            if is_prompt and not self._is_told:
                self.loop.begin_sequence()
        self._newest, self._is_told = (layer, iteration), False

    def start_pass(self, token_ids: Sequence[int], *, is_prompt: bool) -> None:
        """A pass over these tokens begins, before any layer asks; who is not told gets to know it with the first."""
        if is_prompt:
            self.loop.begin_sequence()
        self._is_told = True
        self.loop.begin_pass(token_ids)

    def compute_on_host(self, rule_of: Callable[[TieredLink], HostRule] | None) -> None:
        """Let experts that lie in the host compute there where a rule says so; None for nobody.

        Args:
            rule_of: what moves experts -> the rule.

        Raises:
            ValueError: there is no tier in the host, or the experts there are not exact.
        """
        link = self._link
        if rule_of is None:
            self.host_side = None
        elif not isinstance(link, TieredLink):
            raise ValueError("only experts that lie in the host can compute there: give a host_budget")
        elif self.decoder is not None:
            raise ValueError(f"experts compute in the host as they lie there, which {self.precision.name} cannot")
        else:
            self.host_side = HostSide(rule_of(link), link, self.loop, tuple(link.host_pool.tensors))

    def serve(
        self, seen: Observation, tokens: Sequence[int], *, meanwhile: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Experts of a layer as they are in memory, wave by wave, with their slots.

        Args:
            tokens: place in the pass of the first token that asks for each page.
            meanwhile: called once, while experts are on their way.
        """
        slot_of, first = self.loop.cache.slot_of, seen.layer * self.shape.num_experts
        for wave in self.loop.serve(seen, [self._token + token for token in tokens], meanwhile=meanwhile):
            pages = wave.pages
            yield [page - first for page in pages], [slot_of[page] for page in pages]
            if self.device.type == "cuda":
                # a kernel runs later than its call: the slots that it reads must not be filled anew before.
                torch.cuda.current_stream(self.device).synchronize()

    def slots_of(self, pages: Sequence[int]) -> list[int]:
        """The slot of each page, -1 for one that is not there, or not yet."""
        link, slot_of = self._link, self.loop.cache.slot_of
        return [slot_of.get(page, -1) if link.is_here(page) else -1 for page in pages]

    def drain(self, step: int = 0) -> list[CacheEvent]:
        """The events since the last call, as a trace takes them.

        Args:
            step: of the run that they belong to.
        """
        return self.events.take(step)

    def restart_tokens(self) -> None:
        """Count tokens from 0 again, as a new recording does."""
        self._token = self._pass_tokens = 0
        self.events.clear()

    def residency(self) -> NDArray[np.int8]:
        """Where every expert is, layers by experts: 0 device, 1 host, 2 disk."""
        where = tiers_of(self._link, self.loop.cache.slot_of, pages=self.shape.num_pages, device=self.device)
        return self.precision.slowest(where)

    def share_budget(self, other_bytes: int) -> None:
        """Leave room in the budget for something else, such as a KV cache; experts leave if they must.

        Raises:
            ValueError: one token's experts no longer fit beside it.
        """
        if other_bytes != self._other_bytes:
            capacity = self._capacity(self.budget_bytes - other_bytes)
            self._other_bytes = other_bytes
            self._resize(capacity)

    def set_capacity(self, slots: int) -> None:
        """Hold so many experts from now on, or pages of experts where a slot holds one; the budget follows.

        Raises:
            ValueError: fewer than one token asks for, or more than the device's slots.
        """
        slots, unit = min(slots, self.shape.num_pages), self.precision.unit
        if not self.top_k <= slots <= self.pool.capacity:
            raise ValueError(
                f"one token asks for {self.top_k} {unit} of a layer, and there are {self.pool.capacity} slots; "
                f"got room for {slots}"
            )
        self.budget_bytes = slots * self.store.shape.num_bytes + self._overhead + self._other_bytes
        self._resize(slots)

    def set_policy(self, spec: Spec) -> None:
        """Let another policy decide; what is resident stays.

        Raises:
            LookupError: unknown policy.
            ValueError: arguments that it does not take, or an oracle.
        """
        policy = running_policy(spec, self.shape)
        for page in self.loop.cache.slot_of:
            policy.enter(page)
        self.loop.cache.policy, self.policy = policy, spec

    def set_prefetcher(self, spec: Spec | None) -> None:
        """Let another prefetcher guess; None for none.

        Raises:
            LookupError: unknown prefetcher.
            ValueError: arguments that it does not take, or an oracle.
        """
        self.loop.prefetcher = None if spec is None else running_prefetcher(spec, self.shape)
        self.prefetcher = spec

    def close(self) -> None:
        """End the reading threads and close the store."""
        self._link.close()
        self.store.close()

    @property
    def badge(self) -> str:
        """What may be said of the outputs beside those of the resident model."""
        if self.precision.is_lossless and self.host_side is not None:
            return f"same greedy tokens, not bit-exact: experts compute on {self.device.type} and in the host"
        return str(self.precision)

    def _capacity(self, budget: int) -> int:
        return device_capacity(
            budget,
            self.store.shape.num_bytes,
            overhead=self._overhead,
            least=self.top_k,
            most=self.store.num_pages,
            unit=self.precision.unit,
        )

    def _resize(self, capacity: int) -> None:
        if capacity == self.capacity:
            return
        self._link.settle()
        self.loop.resize(capacity)
        # who left may go down to the host first.
        self._link.settle()
        self.shape = self.loop.cache.policy.shape = replace(self.shape, capacity=capacity)
        used = set(self.loop.cache.slot_of.values())
        self.pool.give_back([slot for slot in range(self.pool.capacity) if slot not in used])

    def _repr_html_(self) -> str:
        rows = {
            "budget": human_bytes(self.budget_bytes),
            f"{self.precision.unit} that fit": f"{self.capacity} of {self.shape.num_pages}",
            "policy, prefetch": f"{self.policy}, {self.prefetcher or 'none'}",
            "in the host": "no tier" if self.host is None else f"{len(self.host.slot_of)} of {self.host.capacity}",
            "read": self.store.way,
            "so far": self.ledger.to_text(),
        }
        if self.host_side is not None:
            rows["in the host, too"] = str(self.host_side.rule)
        return facts("OffloadEngine", rows, note=self.badge)
