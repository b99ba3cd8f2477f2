"""Local routing consistency: how well a few experts, kept for a while, stand in for the router.

Two measures of one text, both with what independent tokens of the same load would show beside them.
Sequences are those of `expert_streams`; windows and caches never cross the end of one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from workbench_kernels import stack_hits
from workbench_kernels.paging import StackPolicy

from workbench.analysis._labelled import EXPERT, LAYER, labelled, measured
from workbench.analysis._segments import best_segment, histogram_by_chance, window_histogram
from workbench.analysis.independent import independent_sets
from workbench.analysis.streams import Streams, expert_streams
from workbench.core.check import at_least, one_of, within
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["Level", "independent_streams", "routing_consistency", "segment_cache_hits"]

Level = Literal["expert", "layer", "model"]

_RESAMPLES_AT_A_TIME = 32
_DIMS: dict[Level, tuple[str, ...]] = {"expert": ("layer", "expert"), "layer": ("layer",), "model": ()}
_COORDS = {
    "alpha": ("uses of a window from which an expert is on", "token"),
    "rho": ("experts held per expert used", "1"),
    "low": ("lower end of the interval", "1"),
    "high": ("upper end of the interval", "1"),
    "by_chance": ("score of independent tokens of the same rates", "1"),
    "by_chance_even": ("score of independent tokens with an even load", "1"),
    "excess": ("score above by_chance", "1"),
}
_POLICIES: dict[str, StackPolicy] = {"lru": "lru", "lfu": "lfu", "sch": "window", "optimum": "min"}


def routing_consistency(
    trace: Trace,
    *,
    window: int = 16,
    level: Level = "layer",
    phase: Phase | None = None,
    is_probe: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.DataArray:
    """Segment routing best performance: F1 score of the best choice that is fixed for a window of tokens.

    In every window each expert is on or off for all its tokens; those with at least `alpha` uses are on, with one
    `alpha` for everything that is pooled. The score rises with the share of experts that a token uses and with
    skew: `by_chance` is what independent tokens of the same rates reach, `by_chance_even` what they reach if all
    experts of a layer are used alike, and `excess` what is above `by_chance`.

    Args:
        window: tokens m. The paper's tables: 16.
        level: what is pooled into one number: each expert by itself, the experts of a layer, or all.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.
        resamples: of the sequences, for the interval.
        confidence: of the interval `low` to `high` (basic bootstrap) [1]; NaN with fewer than two sequences.
        seed: of the resampling.

    Returns:
        Score [1] over `layer`, `expert` or `layer` or nothing, 0 where nothing was used and NaN for experts that
        do not exist; with `alpha` [token], `rho` [1] (experts held per expert used), `low` and `high`.

    Raises:
        LookupError: no routing of this phase, or no sequence as long as the window.
        ValueError: several phases and none asked for, a window below 1, or no such level.

    Source: arXiv 2505.16056 v4, SRP. The paper subtracts no null.
    """
    at_least("window", window, 1)
    at_least("resamples", resamples, 1)
    within("confidence", confidence, 0, 1)
    one_of("level", level, get_args(Level))
    streams = expert_streams(trace, phase=phase, is_probe=is_probe)
    windows = _windows(streams, window)
    values = _values(streams, window, level, resamples, confidence, seed)
    values["by_chance"], values["by_chance_even"] = _by_chance(streams, window, windows, level)
    return labelled(
        _arranged(streams, values["srp"], level),
        _DIMS[level],
        name="routing_consistency",
        long_name=f"F1 score of experts fixed for {window} tokens",
        units="1",
        over=f"{streams.over}; {windows} windows of {window} tokens",
        coords=_coords(streams, values, level),
        facts={"window": window, "windows": windows, "confidence": confidence, "resamples": resamples},
    )


def segment_cache_hits(
    trace: Trace,
    *,
    window: int = 16,
    level: Literal["layer", "model"] = "layer",
    strict: bool = False,
    phase: Phase | None = None,
    is_probe: bool = False,
    seed: int = 0,
) -> xr.DataArray:
    """Hit rate of a cache that sees the next tokens, beside LRU, LFU and the optimum with the same counting.

    The counting of the paper's code: all hits of a token are judged before it, then its experts enter one by one,
    in the order of its slots. Every sequence begins with an empty cache. It uses the future, so it is a bound.

    Args:
        window: tokens that `sch` sees, the present one included.
        level: a cache for each layer, or one for all, which then asks for all layers of a token at once.
        strict: a first use is a miss. By default it is a hit as long as it finds a free slot, as in the paper's
            code, so that the curve reaches 1.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.
        seed: of `by_chance`, the same with independent tokens of the same load.

    Returns:
        Share of requests [1] over `policy` (lru, lfu, sch, optimum), `layer` where there is one each, `slots`; NaN
        for a layer that nobody asked. `rho` is slots over the experts of a token.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for, or a window below 1.

    Source: arXiv 2505.16056 v4, SCH, and the code of the paper since December 2025; before, it was another measure.
    """
    at_least("window", window, 1)
    one_of("level", level, ("layer", "model"))
    streams = expert_streams(trace, phase=phase, is_probe=is_probe)
    values = _cache_curves(streams, window, level, strict)
    chance = _cache_curves(independent_streams(streams, seed=seed), window, level, strict)
    if level == "model":
        values, chance = values[:, 0], chance[:, 0]
    dims = ("policy", "layer", "slots") if level == "layer" else ("policy", "slots")
    coords = _cache_coords(streams, level, values.shape[-1])
    coords["by_chance"] = measured(dims, chance, "hit rate of independent tokens of the same load", "1")
    requests = int((streams.expert >= 0).sum())
    return labelled(
        values,
        dims,
        name="segment_cache_hits",
        long_name="share of requests that hit" + (", first uses missing" if strict else ", free first uses included"),
        units="1",
        over=f"{streams.over}; {requests} requests, {window} tokens seen",
        coords=coords,
        facts={"window": window, "requests": requests, "strict": int(strict)},
    )


def independent_streams(streams: Streams, *, seed: int) -> Streams:
    """Streams in which no token knows another: each layer's experts as often, in sets of the same sizes."""
    expert = np.full_like(streams.expert, -1)
    for place in range(len(streams.layer)):
        page, start = streams.sets(place)
        expert[place][streams.expert[place] >= 0] = independent_sets(
            page, start, np.zeros(streams.num_tokens, np.int64), seed=seed + place
        )
    return Streams(**(vars(streams) | {"expert": expert, "over": f"independent draws like {streams.over}"}))


def _windows(streams: Streams, window: int) -> int:
    lengths = np.diff(streams.bounds)
    windows = int(np.maximum(lengths - window + 1, 0).sum())
    if not windows:
        longest = int(lengths.max(initial=0))
        raise LookupError(f"no sequence is as long as window={window}, the longest has {longest} tokens; use a smaller")
    return windows


def _values(
    streams: Streams, window: int, level: Level, resamples: int, confidence: float, seed: int
) -> dict[str, np.ndarray]:
    """Score, alpha, rho and interval of every group."""
    sequences = streams.num_sequences
    draws = np.random.default_rng(seed).multinomial(sequences, np.full(sequences, 1 / sequences), resamples)
    groups = [found if level == "expert" else found.sum(1, keepdims=True) for found in _histograms(streams, window)]
    if level == "model":
        groups = [sum(groups[1:], groups[0])]
    scores = [_scores(group, draws, confidence) for group in groups]
    return {name: np.stack([one[name] for one in scores]) for name in scores[0]}


def _histograms(streams: Streams, window: int) -> Iterator[Float[np.ndarray, "sequences Z counts"]]:
    """For every layer, windows by their uses of each expert; none of experts that the layer does not have."""
    for place, experts in enumerate(streams.num_experts.tolist()):
        found = np.zeros((streams.num_sequences, streams.width, window + 1))
        for row in range(streams.num_sequences):
            part = streams.expert[place, streams.bounds[row] : streams.bounds[row + 1]]
            found[row, :experts] = window_histogram(part, experts, window)
        yield found


def _scores(
    histogram: Float[np.ndarray, "sequences G counts"], draws: np.ndarray, confidence: float
) -> dict[str, np.ndarray]:
    best = best_segment(histogram.sum(0))
    sequences = len(histogram)
    unknown = np.full(best.srp.shape, np.nan)
    low, high = unknown, unknown
    if sequences > 1:
        flat, again = histogram.reshape(sequences, -1), []
        for first in range(0, len(draws), _RESAMPLES_AT_A_TIME):
            part = draws[first : first + _RESAMPLES_AT_A_TIME].astype(np.float64) @ flat
            again.append(best_segment(part.reshape(-1, *histogram.shape[1:])).srp)
        ends = np.quantile(np.concatenate(again), [(1 + confidence) / 2, (1 - confidence) / 2], axis=0)
        low, high = 2 * best.srp - ends
    return {"srp": best.srp, "alpha": best.alpha, "rho": best.rho, "low": low, "high": high}


def _arranged(streams: Streams, values: np.ndarray, level: Level) -> np.ndarray:
    """One number per group, in the shape of the level; unknown for experts that do not exist."""
    sizes = {"layer": len(streams.layer), "expert": streams.width}
    found = np.asarray(values, np.float64).reshape([sizes[dim] for dim in _DIMS[level]])
    return np.where(_exists(streams), found, np.nan) if level == "expert" else found


def _coords(streams: Streams, values: Mapping[str, np.ndarray], level: Level) -> dict[str, Any]:
    arranged = {name: _arranged(streams, array, level) for name, array in values.items()}
    # a difference of two arrays without dimensions is no array.
    arranged["excess"] = np.asarray(arranged["srp"] - arranged["by_chance"])
    coords = _places(streams, *_DIMS[level])
    for name, (long_name, unit) in _COORDS.items():
        coords[name] = measured(_DIMS[level], arranged[name], long_name, unit)
    return coords


def _exists(streams: Streams) -> Bool[np.ndarray, "L Z"]:
    return np.arange(streams.width) < streams.num_experts[:, None]


def _by_chance(streams: Streams, window: int, windows: int, level: Level) -> tuple[np.ndarray, np.ndarray]:
    exists = _exists(streams)
    rate = np.zeros(exists.shape)
    for place, expert in enumerate(streams.expert):
        rate[place] = np.bincount(expert[expert >= 0], minlength=streams.width) / streams.num_tokens
    mean = rate.sum(-1, keepdims=True) / np.maximum(streams.num_experts, 1)[:, None]
    found = []
    for one in (rate, np.broadcast_to(mean, rate.shape)):
        histogram = histogram_by_chance(one, window) * exists[..., None] * windows
        if level != "expert":
            histogram = histogram.sum(1)
        found.append(best_segment(histogram.sum(0) if level == "model" else histogram).srp)
    return np.asarray(found[0]), np.asarray(found[1])


def _cache_curves(
    streams: Streams, window: int, level: Literal["layer", "model"], strict: bool
) -> Float[np.ndarray, "policies caches slots"]:
    places = list(range(len(streams.layer))) if level == "layer" else [None]
    pages = streams.width if level == "layer" else streams.width * len(streams.layer)
    curves = np.full((len(_POLICIES), len(places), pages), np.nan)
    for column, place in enumerate(places):
        page, start = streams.sets(place)
        for row, policy in enumerate(_POLICIES.values()):
            reuse, cold = stack_hits(page, start, streams.bounds, num_pages=pages, policy=policy, window=window)
            hits = reuse.sum(0) + (0 if strict else cold.sum(0))
            if len(page):
                curves[row, column] = hits.cumsum() / len(page)
    return curves


def _cache_coords(streams: Streams, level: Literal["layer", "model"], most: int) -> dict[str, Any]:
    slots = np.arange(1, most + 1)
    whole = int((streams.expert >= 0).sum((0, 2)).max(initial=0))
    per_token = max(streams.top_k if level == "layer" else whole, 1)
    return {
        "policy": list(_POLICIES),
        **_places(streams, *(["layer"] if level == "layer" else [])),
        "slots": xr.Variable("slots", slots, {"long_name": "experts that fit"}),
        "rho": measured("slots", slots / per_token, "slots per expert of a token", "1"),
    }


def _places(streams: Streams, *dims: str) -> dict[str, Any]:
    coords: dict[str, Any] = {}
    if "layer" in dims:
        coords["layer"] = xr.Variable("layer", streams.layer, {"long_name": LAYER})
    if "expert" in dims:
        coords["expert"] = xr.Variable("expert", np.arange(streams.width), {"long_name": EXPERT})
    return coords
