"""How well the experts of a model can be cached on a text: one report from one trace."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.consistency import routing_consistency, segment_cache_hits
from workbench.analysis.locality import hottest_share, load_gini, reuse_distances
from workbench.analysis.streams import Streams, expert_streams
from workbench.core.check import at_least
from workbench.core.context import Phase
from workbench.core.html import facts
from workbench.offload.replay.budget import LayerBudget, share_slots
from workbench.offload.replay.counters import count_requests
from workbench.offload.requests import Requests
from workbench.trace.schema import Trace

__all__ = ["CacheLevel", "Cacheability", "cacheability_of"]

_MULTIPLES = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class CacheLevel:
    """Caches of one size, one for each layer.

    Args:
        multiple: slots of a layer over the experts of a token [1].
        lru: share of requests that hit with LRU, first uses missing [1].
        optimum: the same with MIN [1].
        sch: share of requests that hit if the next tokens are seen, free first uses hitting [1].
        sch_by_chance: the same for independent tokens of the same load [1].
    """

    multiple: int
    lru: float
    optimum: float
    sch: float
    sch_by_chance: float

    @property
    def ratio(self) -> float:
        """Hits of LRU over those of the optimum [1]; NaN if that has none."""
        return self.lru / self.optimum if self.optimum > 0 else float("nan")


@dataclass(frozen=True, kw_only=True)
class Cacheability:
    """What caches can expect of a model on a text, one token at a time.

    Args:
        over: what it is taken from, in words.
        tokens: that some layer routed.
        requests: of an expert by a token, over all layers.
        hottest_share: share of requests to the hottest tenth of a layer's experts, mean over layers [1].
        gini: Gini coefficient of the load, mean over layers [1].
        reuse_quartiles: other experts of the layer since the last use of an expert, at 25, 50 and 75 % of reuses.
        first_uses: requests without a use before them in their sequence.
        window: tokens of a window, and tokens that `sch` sees.
        windows: of so many tokens, each in every layer; 0 if no sequence is as long, and `srp` is NaN.
        srp: F1 score of experts fixed for a window, all layers together [1].
        srp_by_chance: the same for independent tokens of the same rates [1].
        levels: caches of 1, 2 and 3 times the experts of a token.
        budget: slots for each layer, if each has its own LRU cache.
    """

    over: str
    tokens: int
    requests: int
    hottest_share: float
    gini: float
    reuse_quartiles: tuple[float, float, float]
    first_uses: int
    window: int
    windows: int
    srp: float
    srp_by_chance: float
    levels: tuple[CacheLevel, ...]
    budget: LayerBudget

    def to_text(self) -> str:
        """The report as lines for a terminal."""
        rows = dict(self._rows())
        width = max(map(len, rows))
        return "\n".join((self.over, *(f"{name:{width}}  {value}" for name, value in rows.items())))

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return facts("Cacheability", dict(self._rows()), note=_short(self.over, 300))

    def _rows(self) -> Iterator[tuple[str, str]]:
        requests = f"of {self.requests} requests"
        yield "hottest tenth of experts", f"{self.hottest_share:.1%} {requests}, even load 10.0%; Gini {self.gini:.2f}"
        again = self.requests - self.first_uses
        quartiles = " / ".join(f"{one:.0f}" for one in self.reuse_quartiles)
        yield (
            "experts between two uses",
            f"{quartiles} at 25 / 50 / 75% of {again} reuses; {self.first_uses} first uses",
        )
        if self.windows:
            gain = self.srp - self.srp_by_chance
            score = f"{self.srp:.3f}, by chance {self.srp_by_chance:.3f}, above it {gain:+.3f}"
            yield f"SRP of {self.window} tokens", f"{score}; {self.windows} windows of {self.tokens} tokens"
        else:
            yield f"SRP of {self.window} tokens", f"unknown: no sequence of {self.tokens} tokens is as long"
        for level in self.levels:
            hits = f"LRU {level.lru:.1%}, MIN {level.optimum:.1%}, ratio {level.ratio:.2f}"
            gain = level.sch - level.sch_by_chance
            yield f"cache of {level.multiple} x K", f"{hits}; SCH {level.sch:.1%}, above chance {gain:+.1%}; {requests}"
        yield from self._budget_rows()

    def _budget_rows(self) -> Iterator[tuple[str, str]]:
        budget = self.budget
        yield "slots by layer", f"{_short(', '.join(map(str, budget.slots)), 400)} ({sum(budget.slots)} in all, LRU)"
        saved = f"{budget.even_misses - budget.misses} of {budget.even_misses} misses ({budget.saved_share:.1%})"
        stall = f"{budget.saved_seconds:.3g} s of stall at {budget.miss_seconds:.3g} s per miss"
        yield "saved over an even split", f"{saved}, {stall}; {self.tokens} tokens"


def cacheability_of(
    trace: Trace,
    *,
    miss_seconds: float,
    slots: int | None = None,
    window: int = 16,
    phase: Phase | None = None,
    is_probe: bool = False,
    seed: int = 0,
) -> Cacheability:
    """The report on the routing that a trace holds.

    Every layer has its own cache and tokens come one at a time, sequence after sequence, as in decoding a batch
    of one; caches of LRU and MIN stay warm from one sequence to the next.

    Args:
        miss_seconds: that a miss makes the computation wait [s].
        slots: to share among the layers; by default twice the experts of a token for each.
        window: tokens of a window, and tokens that SCH sees.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.
        seed: of the independent draws.

    Raises:
        LookupError: no routing of this phase, or none of it asks for an expert.
        ValueError: several phases and none asked for, or too few slots for a token's experts in every layer.

    Source: SRP and SCH of arXiv 2505.16056 v4.
    """
    at_least("miss_seconds", miss_seconds, 0)
    streams = expert_streams(trace, phase=phase, is_probe=is_probe)
    requests = int((streams.expert >= 0).sum())
    if not requests:
        raise LookupError(f"no token asks for an expert in {streams.over}; record a model with routed experts")
    phase = streams.phase
    counts = [_misses(streams, place) for place in range(len(streams.layer))]
    lru = np.stack([one[0] for one in counts])
    total = 2 * streams.top_k * len(streams.layer) if slots is None else slots
    reuse = reuse_distances(trace, phase=phase, is_probe=is_probe)
    srp, chance, windows = _consistency(trace, streams, window, is_probe)
    return Cacheability(
        over=streams.over,
        tokens=streams.num_tokens,
        requests=requests,
        hottest_share=float(hottest_share(trace, phase=phase, is_probe=is_probe).mean()),
        gini=float(load_gini(trace, phase=phase, is_probe=is_probe).mean()),
        reuse_quartiles=_quartiles(reuse.values.sum(0)),
        first_uses=int(reuse["first"].sum()),
        window=window,
        windows=windows,
        srp=srp,
        srp_by_chance=chance,
        levels=_levels(trace, streams, lru, np.stack([one[1] for one in counts]), window, is_probe, seed),
        budget=share_slots(lru, total, least=streams.top_k, miss_seconds=miss_seconds),
    )


def _consistency(trace: Trace, streams: Streams, window: int, is_probe: bool) -> tuple[float, float, int]:
    if np.diff(streams.bounds).max(initial=0) < window:
        return float("nan"), float("nan"), 0
    # the report shows no interval: one resample is the least there is.
    found = routing_consistency(
        trace, window=window, level="model", phase=streams.phase, is_probe=is_probe, resamples=1
    )
    return float(found), float(found["by_chance"]), int(found.attrs["windows"])


def _levels(
    trace: Trace,
    streams: Streams,
    lru: NDArray[np.int64],
    optimum: NDArray[np.int64],
    window: int,
    is_probe: bool,
    seed: int,
) -> tuple[CacheLevel, ...]:
    seen = segment_cache_hits(trace, window=window, phase=streams.phase, is_probe=is_probe, seed=seed).sel(policy="sch")
    asked = (streams.expert >= 0).sum((1, 2))
    total = int(asked.sum())
    found = []
    for multiple in _MULTIPLES:
        place = min(multiple * streams.top_k, streams.width) - 1
        curves = [np.nan_to_num(array.isel(slots=place).values) for array in (seen, seen["by_chance"])]
        rates = [float((curve * asked).sum() / total) for curve in curves]
        misses = [int(array[:, place].sum()) for array in (lru, optimum)]
        found.append(
            CacheLevel(
                multiple=multiple,
                lru=1 - misses[0] / total,
                optimum=1 - misses[1] / total,
                sch=rates[0],
                sch_by_chance=rates[1],
            )
        )
    return tuple(found)


def _misses(streams: Streams, place: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Misses of LRU and of MIN in a layer's own cache of 1, 2, ... slots."""
    requests = _requests_of(streams, place)
    sizes = range(1, streams.width + 1)
    return count_requests(requests, "lru", sizes).misses, count_requests(requests, "min", sizes).misses


def _requests_of(streams: Streams, place: int) -> Requests:
    expert = np.sort(streams.expert[place], axis=-1)
    asked, tokens = expert >= 0, streams.num_tokens
    is_first = np.zeros(tokens, np.bool_)
    is_first[streams.bounds[:-1]] = True
    return Requests(
        num_layers=1,
        num_experts=streams.width,
        top_k=max(streams.top_k, 1),
        page=expert[asked],
        count=np.ones(int(asked.sum()), np.int32),
        start=np.concatenate([[0], asked.sum(-1).cumsum()]),
        layer=np.zeros(tokens, np.int16),
        token=np.arange(tokens),
        tokens=np.ones(tokens, np.int32),
        is_prefill=np.zeros(tokens, np.bool_),
        is_first=is_first,
    )


def _quartiles(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """Distances below which a quarter, a half and three quarters of the reuses lie; NaN without a reuse."""
    share = counts.cumsum() / max(int(counts.sum()), 1)
    if not counts.sum():
        return (float("nan"),) * 3
    low, middle, high = (float(np.searchsorted(share, part)) for part in (0.25, 0.5, 0.75))
    return low, middle, high


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
