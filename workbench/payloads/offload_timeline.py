"""The `/offload` group for the view `offload_timeline`."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.payloads.container import encode
from workbench.payloads.reading import group, offload_terms, origin
from workbench.trace.schema import KINDS, Trace

__all__ = ["offload_timeline_payload"]

_NOTHING = "This run keeps every expert in memory: no offload, so nothing is ever missed and nothing waits."
_NOTHING_YET = (
    "The experts are offloaded, and nothing was asked for yet: that begins with the next text that is written."
)
_SOURCE = "Recorded by the offload engine (/offload): every event with the time that the computation waited for it."


def offload_timeline_payload(trace: Trace, *, max_moments: int = 4000, max_stalls: int = 200) -> bytes:
    """Cache events token by token: hits, misses, late prefetches, evictions, bytes moved and time waited.

    Args:
        trace: with an `offload` group; without one the view says that nothing is offloaded.
        max_moments: tokens that are sent, 60 bytes each; past it the newest, and the view says so. Totals count all.
        max_stalls: of the longest waits that are named with their layer and expert.
    """
    dataset = group(trace, "offload")
    if dataset is None or dataset.sizes.get("event", 0) == 0:
        return encode("offload_timeline", {"empty": _NOTHING_YET if "offload" in trace.attrs else _NOTHING}, {})
    events = {name: dataset[name].values for name in ("step", "token", "layer", "expert", "bytes", "stall_seconds")}
    kind = _kind_index(dataset["kind"].values)
    moment, first = _moments(events["step"], events["token"])
    count = len(first)
    counts = np.zeros((count, len(KINDS)), np.int32)
    np.add.at(counts, (moment, kind), 1)
    wait = np.nan_to_num(events["stall_seconds"])
    stall = np.bincount(moment, wait, count)
    moved = np.bincount(moment, events["bytes"].astype(np.float64), count)
    shown = slice(max(0, count - max_moments), count)
    index, pieces = _tokens(trace, events["step"][first[shown]], events["token"][first[shown]])
    source = origin(trace, "offload", source=_SOURCE)
    if count > max_moments:
        source["statements"].append(f"Showing the newest {max_moments:,} of {count:,} tokens; totals count all.")
    arrays: dict[str, NDArray[Any]] = {
        "step": events["step"][first[shown]].astype(np.int32),
        "token": events["token"][first[shown]].astype(np.int32),
        "index": index,
        "counts": counts[shown],
        "stall": stall[shown],
        "bytes": moved[shown],
        "totals": np.bincount(kind, minlength=len(KINDS)).astype(np.float64),
        "sums": np.array([stall.sum(), moved.sum()]),
        **_stalls(events, kind, moment - shown.start, wait, max_stalls),
    }
    header = {"kinds": list(KINDS), "pieces": pieces, "tokens": count}
    return encode("offload_timeline", {**source, **header, **offload_terms(trace)}, arrays)


def _kind_index(words: NDArray[Any]) -> NDArray[np.int64]:
    place = {name: i for i, name in enumerate(KINDS)}
    return np.array([place[str(word)] for word in words], np.int64)


def _moments(step: NDArray[np.int64], token: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every event the token it belongs to, numbered in order of time; and the first event of each token."""
    # A token's events may be interrupted by those of a prefetch for none in particular, so equal keys are one moment.
    keys = list(zip(step.tolist(), token.tolist(), strict=True))
    number: dict[tuple[int, int], int] = {}
    moment = np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
    first = np.zeros(len(number), np.int64)
    first[moment[::-1]] = np.arange(len(step))[::-1]
    return moment, first


def _stalls(
    events: dict[str, NDArray[Any]], kind: NDArray[np.int64], moment: NDArray[np.int64], wait: NDArray[Any], limit: int
) -> dict[str, NDArray[Any]]:
    """The longest waits among the tokens that are sent, the longest first."""
    candidates = np.flatnonzero((wait > 0) & (moment >= 0))
    longest = candidates[np.argsort(-wait[candidates], kind="stable")][:limit]
    return {
        "stalls.moment": moment[longest].astype(np.int32),
        "stalls.layer": events["layer"][longest].astype(np.int32),
        "stalls.expert": events["expert"][longest].astype(np.int32),
        "stalls.kind": kind[longest].astype(np.int32),
        "stalls.seconds": wait[longest],
    }


def _tokens(trace: Trace, step: NDArray[Any], token: NDArray[Any]) -> tuple[NDArray[np.int32], list[str]]:
    """Where each token stands in `/routing`, -1 if it was not recorded there; and its text."""
    routing = group(trace, "routing")
    place = {} if routing is None else _places(routing)
    index = np.array([place.get(key, -1) for key in zip(step.tolist(), token.tolist(), strict=True)], np.int32)
    pieces = [] if routing is None else routing["piece"].values
    return index, [str(pieces[i]) if i >= 0 else "" for i in index]


def _places(routing: xr.Dataset) -> dict[tuple[int, int], int]:
    """(step, index of the token within the step) -> its place among the tokens that the model read or wrote."""
    rows = np.flatnonzero(np.isin(routing["phase"].values, ("prefill", "decode")) & ~routing["is_probe"].values)
    step = routing["step"].values[rows]
    count: dict[int, int] = {}
    out = {}
    for row, at in zip(rows.tolist(), step.tolist(), strict=True):
        nth = count.get(at, 0)
        count[at] = nth + 1
        out[at, nth] = row
    return out
