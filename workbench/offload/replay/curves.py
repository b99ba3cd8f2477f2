"""What a cache of another size or with another policy would do: hit rates, bytes and speed against capacity."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.independent import independent_sets
from workbench.core.check import at_least
from workbench.core.spec import Spec
from workbench.offload.replay.counters import Counts, count_requests, counter_of
from workbench.offload.replay.workers import Run, run_all
from workbench.offload.requests import Requests

__all__ = ["CountRun", "cache_curves", "count_runs", "independent_requests", "knee_of", "usual_capacities", "with_min"]

_SOURCES = ("recorded", "independent")
_UNITS = {
    "hit_rate": ("share of requests that hit", "1"),
    "misses": ("requests whose expert had to be brought", "request"),
    "bytes": ("brought for all requests", "B"),
    "tokens_per_second": ("predicted speed, nothing overlapped", "token/s"),
    "knee": ("capacity from which more room brings less than on average", "expert"),
}


def cache_curves(
    requests: Requests,
    policies: Sequence[str | Spec] = ("min", "lru", "lfu"),
    capacities: Sequence[int] | None = None,
    *,
    block_bytes: float,
    bytes_per_second: float,
    compute_seconds: float = 0.0,
    seed: int = 0,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Every policy at every capacity, on the recorded requests and on independent ones of the same load.

    Fast counters take all their capacities in one pass, on threads; other policies run the general loop, on processes
    that are started anew, so a policy that was entered by hand needs `jobs=1`, and a script a main guard.

    Args:
        policies: as they are registered, with their arguments; `min` is put first if it is not among them.
        capacities: experts that fit, over all layers; by default 16 from the largest set to all experts.
        block_bytes: of an expert [B].
        bytes_per_second: at which experts come [B/s].
        compute_seconds: of a token whose experts are all there [s].
        seed: of the independent requests.
        jobs: processes or threads at a time; by default one per core.
        on_progress: called with runs done and to do; a run is one policy, capacity and source.

    Returns:
        `hit_rate` [1], `misses` [request], `bytes` [B] and `tokens_per_second` [token/s] over `source` (recorded,
        independent), `policy`, `capacity`, and the `knee` [expert] over `source`, `policy` (see `knee_of`). Tokens
        take their computing and their misses one after the other: what overlaps makes it faster.

    Raises:
        LookupError: no such policy.
        ValueError: an argument that a policy does not take, no requests, or a number out of its range.
    """
    specs = with_min([Spec.parse(one) if isinstance(one, str) else one for one in policies])
    _check(requests, block_bytes, bytes_per_second, compute_seconds)
    sizes = sorted(set(usual_capacities(requests) if capacities is None else capacities))
    at_least("the smallest capacity", min(sizes, default=0), 1, hint="give capacities in experts")
    jobs = jobs if jobs is not None else os.cpu_count() or 1
    at_least("jobs", jobs, 1)
    sources = (requests, independent_requests(requests, seed=seed))
    misses = np.empty((len(_SOURCES), len(specs), len(sizes)), np.int64)
    runs = count_runs(specs, sizes, jobs, len(sources))
    for place, counts in run_all(sources, runs, jobs=jobs, on_progress=on_progress):
        misses[runs[place].source, runs[place].policy, np.searchsorted(sizes, runs[place].capacities)] = counts.misses
    seconds = requests.num_tokens * compute_seconds + misses * (block_bytes / bytes_per_second)
    hit_rate = 1 - misses / len(requests)
    arrays = {
        "hit_rate": hit_rate,
        "misses": misses,
        "bytes": misses * float(block_bytes),
        "tokens_per_second": requests.num_tokens / np.where(seconds > 0, seconds, np.nan),
        "knee": np.array([[knee_of(sizes, curve) for curve in rows] for rows in hit_rate]),
    }
    found = _dataset(arrays, requests, specs, sizes, block_bytes)
    return found.assign_attrs(
        bytes_per_second=float(bytes_per_second), compute_seconds=float(compute_seconds), seed=seed
    )


def knee_of(capacities: Sequence[int], hit_rate: NDArray[np.float64]) -> float:
    """The capacity from which more room brings less than it does on average over the whole curve.

    That is where the curve, with both its axes scaled to 0 to 1, is highest above the straight line between its
    ends; the smallest of several. NaN if the curve has fewer than three points or no such height.

    Source: the rule of Satopaa et al. (2011), "Finding a Kneedle in a Haystack", without smoothing.
    """
    rate, size = np.asarray(hit_rate, np.float64), np.asarray(capacities, np.float64)
    if len(size) < 3 or not rate[-1] > rate[0]:
        return float("nan")
    height = (rate - rate[0]) / (rate[-1] - rate[0]) - (size - size[0]) / (size[-1] - size[0])
    best = int(height.argmax())
    return float(size[best]) if height[best] > 1e-12 else float("nan")


def independent_requests(requests: Requests, *, seed: int) -> Requests:
    """Requests in which no set knows another: each layer's experts as often, in sets of the same sizes.

    Tokens behind a request stay where they were, so they no longer belong to its expert.
    """
    page = independent_sets(requests.page, requests.start, requests.layer.astype(np.int64), seed=seed)
    return replace(requests, page=page)


@dataclass(frozen=True)
class CountRun(Run[Counts]):
    """Counts one policy at some capacities.

    Args:
        source: which requests.
        policy: place in the sweep.
        capacities: experts that fit.
        is_compiled: a fast counter does it.
    """

    source: int
    policy: int
    spec: Spec
    capacities: tuple[int, ...]
    is_compiled: bool

    @property
    def size(self) -> int:
        """A cell for each capacity."""
        return len(self.capacities)

    def found_in(self, requests: Requests) -> Counts:
        """The counts."""
        return count_requests(requests, self.spec, self.capacities)


def count_runs(specs: Sequence[Spec], sizes: Sequence[int], jobs: int, sources: int) -> list[CountRun]:
    """Runs that count every policy at every capacity: the compiled ones first, each with a share of the capacities."""
    fast: list[CountRun] = []
    slow: list[CountRun] = []
    for source in range(sources):
        for number, spec in enumerate(specs):
            if counter_of(spec)[0]:
                parts = [tuple(sizes[first::jobs]) for first in range(min(jobs, len(sizes)))]
                fast += [CountRun(source, number, spec, part, True) for part in parts]
            else:
                slow += [CountRun(source, number, spec, (size,), False) for size in sizes]
    return [*fast, *slow]


def _dataset(
    arrays: Mapping[str, NDArray[Any]],
    requests: Requests,
    specs: Sequence[Spec],
    sizes: Sequence[int],
    block_bytes: float,
) -> xr.Dataset:
    dims = ("source", "policy", "capacity")
    return xr.Dataset(
        {name: (dims[: array.ndim], array, _attrs(name)) for name, array in arrays.items()},
        coords={
            "source": list(_SOURCES),
            "policy": [str(spec) for spec in specs],
            "capacity": ("capacity", sizes, {"long_name": "experts that fit, over all layers", "units": "expert"}),
            "cache_bytes": ("capacity", np.array(sizes) * float(block_bytes), {"units": "B"}),
            "counted_by": ("policy", [counter_of(spec)[1] for spec in specs]),
        },
        attrs={
            "over": requests.about,
            "block_bytes": float(block_bytes),
        },
    )


def with_min(specs: list[Spec]) -> list[Spec]:
    """These policies without repetitions, the optimum first."""
    best = Spec("min")
    return list({str(spec): spec for spec in (best, *specs)}.values())


def usual_capacities(requests: Requests) -> list[int]:
    """Sixteen capacities from the largest set to all experts."""
    largest = int(np.diff(requests.start).max(initial=1))
    sizes: list[int] = np.unique(np.linspace(largest, requests.num_pages, 16).round().astype(np.int64)).tolist()
    return sizes


def _check(requests: Requests, block_bytes: float, bytes_per_second: float, compute_seconds: float) -> None:
    if not len(requests):
        raise ValueError("the requests are empty, expected at least one; record some text first")
    at_least("block_bytes", block_bytes, 0)
    at_least("compute_seconds", compute_seconds, 0)
    if not bytes_per_second > 0:
        raise ValueError(f"bytes_per_second must be above 0, got {bytes_per_second}; measure the link")


def _attrs(name: str) -> dict[str, str]:
    long_name, units = _UNITS[name]
    return {"long_name": long_name, "units": units}
