"""Experts of a layer of which only some are in memory: the same signature, the same outputs."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts, TokenWeights
from workbench.core.sparse import SparseRouting
from workbench.offload.compute.asked import Asked, asked_of
from workbench.offload.compute.brought import TokenBringer
from workbench.offload.compute.host_compute import measure_host
from workbench.offload.compute.host_side import HostPart
from workbench.offload.engine import OffloadEngine
from workbench.offload.precision.skipping import without_light
from workbench.offload.prefetcher import Guess, Observation

__all__ = ["Ahead", "OffloadedExperts"]

Ahead = Callable[[int, Tensor, RouteContext], Sequence[Guess]]
"""(layer, hidden states before its experts, context) -> what the next layer's router would choose for them."""


class _Wave(NamedTuple):
    """Experts that compute together: their numbers, their places on the first axis of the tensors, and these.

    With `rows` they have computed, in the host or before the others came; the rows are in the order of places.
    """

    experts: list[int]
    places: list[int]
    tensors: tuple[Tensor, ...]
    rows: Tensor | None = None


@final
class OffloadedExperts(Experts):
    """One layer's experts, brought by an engine. For inference.

    The output is the resident model's bit for bit: every expert's rows stay in one call, and a token's experts
    are added in the order of its choices, however they arrived. With lossy experts the same holds for a resident
    model of the weights that they decode to.

    Args:
        body: the mathematics; its own weights are not used and may be on the meta device.
        engine: brings the weights; shared by all layers.
        layer: index among the MoE layers.
        ahead: how a prefetcher gets to know what the next layer would choose.
    """

    def __init__(self, body: Experts, engine: OffloadEngine, layer: int, ahead: Ahead):
        super().__init__(body.num_experts)
        # in a tuple, so that it is no submodule: the model's state knows no weights of offloaded experts.
        self._mathematics = (body,)
        self.engine, self.layer, self.ahead = engine, layer, ahead

    def tensors(self) -> tuple[Any, ...]:
        """None of its own: the engine has them."""
        return ()

    def token_weights(self) -> TokenWeights | None:
        """The slots, and who fills them, where a token's experts are exact and compute where they are brought to."""
        engine = self.engine
        is_more = engine.decoder is not None or engine.precision.skip > 0 or engine.host_side is not None
        if is_more or engine.device.type != "cpu" or self._body.token_weights() is None:
            return None
        gate_up, down = engine.pool.tensors
        return TokenWeights(gate_up, down, TokenBringer(engine, self.layer, self.num_experts, self.ahead))

    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """Dispatch, the experts as they become resident, weighted combine.

        Raises:
            ValueError: gradients are wanted, a router that merges experts, or an expert that is damaged.
            OSError: an expert could not be read.
        """
        plan = self._computed(plan)
        asked = asked_of(plan)
        waves = self._waves(asked, x, plan, context)
        first = next(waves, None)
        if first is None:
            return torch.zeros_like(x)
        if len(first.experts) < len(asked.experts) or first.rows is not None:
            return plan.combine(self._rows(asked, first, waves, x, plan, context)).to(x.dtype)
        out = self._body.run(first.tensors, x, _renumbered(plan, first, is_whole=True), context)
        assert next(waves, None) is None, "the first wave held everything"
        return out

    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """Every row after its expert. Nothing is skipped: who takes the rows weighs all of them."""
        asked = asked_of(plan)
        waves = self._waves(asked, x, plan, context)
        first = next(waves, None)
        return x[:0] if first is None else self._rows(asked, first, waves, x, plan, context)

    def measure_host(self, width: int) -> None:
        """Measure this machine, and from now on compute experts in the host where that is cheaper.

        Call it before the first token: slots are overwritten.

        Args:
            width: of the rows.

        Raises:
            ValueError: there is no tier in the host, or the experts there are not exact.
        """
        dtype = self.engine.store.shape.parts[0].torch_dtype
        self.engine.compute_on_host(lambda link: measure_host(self._body, link, width=width, dtype=dtype))

    @property
    def _body(self) -> Experts:
        return self._mathematics[0]

    def _computed(self, plan: SparseRouting) -> SparseRouting:
        """The part of a plan that is worth computing."""
        plan, skipped = without_light(plan, self.engine.precision.skip)
        self.engine.ledger.skipped += skipped
        return plan

    def _waves(self, asked: Asked, x: Tensor, plan: SparseRouting, context: RouteContext) -> Iterator[_Wave]:
        if plan.num_experts != self.num_experts:
            raise ValueError(
                f"offloaded experts run one by one, and this router asks for {plan.num_experts} merged ones of "
                f"{self.num_experts}; a router that merges experts needs all of them in memory"
            )
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError("offloaded experts serve inference: call the model under torch.no_grad()")
        engine = self.engine
        engine.begin_pass(self.layer, context.iteration, len(x), is_prompt=context.phase != "decode")
        side = engine.host_side
        if side is None or not asked.experts:
            yield from self._served(asked, x, plan, context)
            return
        pages = [self._pages(expert)[0] for expert in asked.experts]
        below = HostPart(side, pages, asked.counts, [engine.tokens_before + token for token in asked.tokens])
        compute = partial(below.compute, self._body, asked.experts, x, plan, context)
        try:
            yield from self._served(asked.without(below.places), x, plan, context, meanwhile=compute)
            # nothing may have been on its way.
            compute()
            if below.rows is not None:
                experts = [asked.experts[place] for place in below.places]
                yield _Wave(experts, below.slots, side.tensors, below.rows)
        finally:
            below.end()

    def _served(
        self,
        asked: Asked,
        x: Tensor,
        plan: SparseRouting,
        context: RouteContext,
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Iterator[_Wave]:
        """Those experts that compute on the device."""
        engine = self.engine
        token_ids = None if context.token_id is None or not self._reads_tokens else tuple(context.token_id.tolist())
        for part in self._parts(asked):
            pages = [(page, number) for number, expert in enumerate(part.experts) for page in self._pages(expert)]
            seen = Observation(
                layer=self.layer,
                pages=[page for page, _ in pages],
                counts=[part.counts[number] for _, number in pages],
                ahead=lambda: engine.precision.guesses(self._guess(x, plan, context)),
                token_ids=token_ids,
            )
            tokens = [part.tokens[number] for _, number in pages]
            early, computed = list[_Wave](), set[int]()
            compute = partial(self._compute_early, early, part, x, plan, context, meanwhile)
            for numbers, slots in engine.serve(seen, tokens, meanwhile=compute):
                while early:
                    yield early[0]
                    computed.update(early.pop().experts)
                left = [(n, slot) for n, slot in zip(numbers, slots, strict=True) if n not in computed]
                if left:
                    yield from self._computable([number for number, _ in left], [slot for _, slot in left])

    def _compute_early(
        self,
        early: list[_Wave],
        part: Asked,
        x: Tensor,
        plan: SparseRouting,
        context: RouteContext,
        others: Callable[[], None],
    ) -> None:
        """While some are on their way: the others, and then those that are there."""
        others()
        if self.engine.decoder is not None:
            return
        slots = self.engine.slots_of([self._pages(expert)[0] for expert in part.experts])
        there = [(expert, slot) for expert, slot in zip(part.experts, slots, strict=True) if slot >= 0]
        if 0 < len(there) < len(slots):
            wave = _Wave([expert for expert, _ in there], [slot for _, slot in there], self._slots)
            rows = self._body.unweighted(wave.tensors, x, _renumbered(plan, wave), context)
            early.append(wave._replace(rows=rows))

    def _pages(self, expert: int) -> range:
        return self.engine.precision.pages(self.layer, expert)

    def _parts(self, asked: Asked) -> Iterator[Asked]:
        """What is asked for, cut so that all pages of an expert are in one wave; the resident ones first."""
        capacity, slot_of = self.engine.capacity, self.engine.loop.cache.slot_of
        pages = [len(self._pages(expert)) for expert in asked.experts]
        if self.engine.precision.levels == 1 or sum(pages) <= capacity:
            if asked.experts:
                yield asked
            return
        is_missed = [any(page not in slot_of for page in self._pages(expert)) for expert in asked.experts]
        places: list[int] = []
        for place in sorted(range(len(pages)), key=lambda place: (is_missed[place], place)):
            if sum(pages[one] for one in places) + pages[place] > capacity:
                yield asked.part(places)
                places = []
            places.append(place)
        yield asked.part(places)

    def _computable(self, numbers: list[int], slots: list[int]) -> Iterator[_Wave]:
        """A wave of pages as experts with dense tensors."""
        engine, decoder = self.engine, self.engine.decoder
        if decoder is None:
            yield _Wave(numbers, slots, self._slots)
            return
        levels = engine.precision.levels
        slots_of: dict[int, list[int]] = {}
        for number, slot in sorted(zip(numbers, slots, strict=True)):
            slots_of.setdefault(number // levels, []).append(slot)
        experts = list(slots_of)
        assert all(len(slots_of[one]) == len(self._pages(one)) for one in experts), "an expert's pages are one wave"
        for start in range(0, len(experts), decoder.room):
            some = experts[start : start + decoder.room]
            decoder.put([slots_of[expert] for expert in some], engine.pool.tensors)
            yield _Wave(some, list(range(len(some))), decoder.tensors)

    @property
    def _slots(self) -> tuple[Tensor, ...]:
        return tuple(tensor[: self.engine.capacity] for tensor in self.engine.pool.tensors)

    @property
    def _reads_tokens(self) -> bool:
        prefetcher = self.engine.loop.prefetcher
        return prefetcher is not None and prefetcher.needs_tokens

    def _guess(self, x: Tensor, plan: SparseRouting, context: RouteContext) -> Sequence[Guess]:
        """What the next layer will ask for: what the router itself says where it does, else what its gate would."""
        if plan.ahead is None:
            return self.ahead(self.layer, x, context)
        chosen, rows = torch.unique(plan.ahead[plan.ahead >= 0], return_counts=True)
        base, tokens = (self.layer + 1) * self.num_experts, max(len(x), 1)
        guesses = [(base + expert, n / tokens) for expert, n in zip(chosen.tolist(), rows.tolist(), strict=True)]
        return sorted(guesses, key=lambda guess: (-guess[1], guess[0]))

    def _rows(
        self,
        asked: Asked,
        first: _Wave,
        waves: Iterator[_Wave],
        x: Tensor,
        plan: SparseRouting,
        context: RouteContext,
    ) -> Float[Tensor, "N D"]:
        starts = dict(zip(asked.experts, accumulate([0, *asked.counts]), strict=False))
        counts = dict(zip(asked.experts, asked.counts, strict=True))
        rows = x.new_empty(0, x.shape[1])
        wave: _Wave | None = first
        while wave is not None:
            # the rows come back in the order of places.
            in_order = sorted(zip(wave.places, wave.experts, strict=True))
            part = wave.rows
            if part is None:
                part = self._body.unweighted(wave.tensors, x, _renumbered(plan, wave), context)
            if not len(rows):
                rows = part.new_empty(sum(asked.counts), x.shape[1])
            at = 0
            for _, expert in in_order:
                size = counts[expert]
                rows[starts[expert] : starts[expert] + size] = part[at : at + size]
                at += size
            wave = next(waves, None)
        return rows

    def extra_repr(self) -> str:
        """What it is, for printing."""
        return f"{self.num_experts} experts, {self.engine.capacity} slots for all layers"


def _renumbered(plan: SparseRouting, wave: _Wave, *, is_whole: bool = False) -> SparseRouting:
    device = plan.expert.device
    experts, places = (torch.tensor(numbers, device=device) for numbers in (wave.experts, wave.places))
    return plan.renumber(experts, places, num_experts=len(wave.tensors[0]), is_whole=is_whole)
