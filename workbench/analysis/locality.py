"""How far from even and how soon again experts are asked for: skew and reuse of the routing."""

import numpy as np
import xarray as xr
from workbench_kernels import stack_hits

from workbench.analysis._labelled import LAYER, labelled, measured
from workbench.analysis.streams import Streams, expert_streams
from workbench.core.check import within
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["hottest_share", "load_gini", "reuse_distances"]


def hottest_share(
    trace: Trace, *, share: float = 0.1, phase: Phase | None = None, is_probe: bool = False
) -> xr.DataArray:
    """Share of a layer's requests that its hottest experts take.

    Args:
        share: of the experts that count as hottest [1]; of a broken number the last counts in part.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Share of requests [1] over `layer`, equal to `share` for an even load; NaN for a layer that nobody asked.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for, or a share outside 0 to 1.
    """
    within("share", share, 0, 1)
    streams = expert_streams(trace, phase=phase, is_probe=is_probe)
    found = []
    for counts in _uses(streams):
        taken = np.concatenate([[0.0], np.sort(counts)[::-1].cumsum()])
        found.append(np.interp(share * len(counts), np.arange(len(taken)), taken) / max(counts.sum(), 1))
    name = f"share of requests to the hottest {share:.0%} of experts"
    return _by_layer(streams, np.array(found), "hottest_share", name)


def load_gini(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Gini coefficient of the requests of a layer's experts.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Coefficient [1] over `layer`: 0 for an even load, 1 - 1/E where one of E experts takes all; NaN for a layer
        that nobody asked.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    streams = expert_streams(trace, phase=phase, is_probe=is_probe)
    found = []
    for counts in _uses(streams):
        total, experts = counts.sum(), len(counts)
        rank = np.arange(1, experts + 1)
        found.append((2 * (rank * np.sort(counts)).sum() / max(total, 1) - experts - 1) / max(experts, 1))
    return _by_layer(streams, np.array(found), "load_gini", "Gini coefficient of the requests of experts")


def reuse_distances(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Requests by the number of other experts of the layer that were asked for since the expert's last use.

    A token's experts come in the order of its slots. So an LRU cache of `c` experts that takes them in that order
    hits the requests at distances below `c`.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Requests [request] over `layer`, `distance`; `first` counts those without a use before them in their sequence.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    streams = expert_streams(trace, phase=phase, is_probe=is_probe)
    reuse, first = np.zeros((len(streams.layer), streams.width), np.int64), np.zeros(len(streams.layer), np.int64)
    for place in range(len(streams.layer)):
        page, start = streams.sets(place)
        again, cold = stack_hits(page, start, streams.bounds, num_pages=streams.width, policy="lru")
        reuse[place], first[place] = again.sum(0), cold.sum()
    coords = {
        "layer": xr.Variable("layer", streams.layer, {"long_name": LAYER}),
        "distance": xr.Variable(
            "distance", np.arange(streams.width), {"long_name": "other experts since the last use"}
        ),
        "first": measured("layer", first, "first uses of an expert in a sequence", "request"),
    }
    return labelled(
        reuse,
        ("layer", "distance"),
        name="reuse_distances",
        long_name="requests by reuse distance",
        units="request",
        over=streams.over,
        coords=coords,
    )


def _uses(streams: Streams) -> list[np.ndarray]:
    """Requests of every expert that a layer has, layer by layer."""
    return [
        np.bincount(expert[expert >= 0], minlength=experts)
        for expert, experts in zip(streams.expert, streams.num_experts.tolist(), strict=True)
    ]


def _by_layer(streams: Streams, values: np.ndarray, name: str, long_name: str) -> xr.DataArray:
    requests = (streams.expert >= 0).sum((1, 2))
    coords = {
        "layer": xr.Variable("layer", streams.layer, {"long_name": LAYER}),
        "requests": measured("layer", requests, "requests of the layer", "request"),
    }
    return labelled(
        np.where(requests > 0, values, np.nan),
        ("layer",),
        name=name,
        long_name=long_name,
        units="1",
        over=streams.over,
        coords=coords,
    )
