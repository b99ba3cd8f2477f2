"""What another link, precision, cache or host would do with a recorded routing: one sweep over all of them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.core.check import at_least
from workbench.core.spec import Spec
from workbench.offload.policies import POLICIES
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.replay.counters import Counts
from workbench.offload.replay.curves import count_runs, independent_requests, knee_of, usual_capacities, with_min
from workbench.offload.replay.scene import Scene, replay
from workbench.offload.replay.workers import Run, run_all
from workbench.offload.requests import Requests

__all__ = ["Outcome", "what_if"]

_DIMS = ("source", "policy", "prefetch", "link", "precision", "capacity")
_SOURCES = ("recorded", "independent")
_UNITS = {
    "hit_rate": ("share of requests whose expert was there", "1"),
    "misses": ("requests whose expert had to be brought", "request"),
    "bytes": ("predicted, moved over all ways", "B"),
    "seconds": ("predicted, of all passes", "s"),
    "tokens_per_second": ("predicted speed", "token/s"),
}


@dataclass(frozen=True)
class Outcome:
    """A cell of the sweep.

    Args:
        hit_rate: share of requests whose expert was there [1].
        misses: requests whose expert had to be brought.
        bytes: moved, all ways [B].
        seconds: simulated [s].
    """

    hit_rate: float
    misses: float
    bytes: float
    seconds: float


def what_if(
    requests: Requests,
    links: Mapping[str, Scene],
    policies: Sequence[str | Spec] = ("min", "lru", "lfu"),
    capacities: Sequence[int] | None = None,
    *,
    precisions: Mapping[str, int] | None = None,
    prefetchers: Sequence[str | Spec | None] = (None,),
    seed: int = 0,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Every policy and prefetcher at every capacity, over every link, with experts of every precision.

    All numbers are predicted: those of a `replay` of the cell. Where nobody guesses and there is no tier in the host,
    misses do not depend on the link, and are counted once for all links. Processes and threads as in `cache_curves`.

    Lossy experts are taken for blocks of their size: what they cost to decode, and in quality, is not in here.

    Args:
        links: the machine behind each name: its costs, its computation, its tier in the host and who computes there.
        policies: as they are registered, with their arguments; `min` is put first if it is not among them.
        capacities: room, as experts of the first precision, over all layers: smaller experts fit more often into the
            same bytes. By default 16 from the largest set to all experts. The room in the host is taken likewise.
        precisions: bytes of an expert [B], see `bytes_in_format`; by default the blocks of the first link.
        prefetchers: as they are registered; None for nobody.
        seed: of the independent requests.
        jobs: processes or threads at a time; by default one per core.
        on_progress: called with cells done and to do.

    Returns:
        `hit_rate` [1], `misses` [request], `bytes` [B], `seconds` [s] and `tokens_per_second` [token/s] over `source`
        (recorded, independent), `policy`, `prefetch`, `link`, `precision` and `capacity`; `knee` [expert] of the hit
        rate; `fits`, the experts that a room holds; and where the costs of each link come from. NaN where there is
        no such cell: an oracle beside a host that computes, or hints of a recorded text on independent requests.

    Raises:
        LookupError: no such policy or prefetcher, or one that reads what the trace does not hold.
        ValueError: an argument that they do not take, no requests or links, or a number out of its range.
    """
    specs = with_min([Spec.parse(one) if isinstance(one, str) else one for one in policies])
    guesses = [Spec.parse(one) if isinstance(one, str) else one for one in prefetchers]
    sizes = sorted(set(usual_capacities(requests) if capacities is None else capacities))
    if not (links and guesses and len(requests)):
        counts = f"{len(requests)}, {len(links)} and {len(guesses)}"
        raise ValueError(f"a sweep needs requests, links and prefetchers (None for nobody), got {counts}")
    block_bytes = dict(precisions or {"exact": next(iter(links.values())).block_bytes})
    at_least("bytes of an expert", min(block_bytes.values()), 1)
    at_least("the smallest capacity", min(sizes, default=0), 1, hint="give capacities in experts")
    jobs = jobs if jobs is not None else os.cpu_count() or 1
    at_least("jobs", jobs, 1)
    room = _fits(sizes, block_bytes, requests.num_pages)
    at_least("experts that fit", int(room.min()), 1, hint="an expert of some precision is larger than the least room")
    sweep = _Sweep(requests, specs, guesses, list(links.items()), list(block_bytes.items()), sizes, room)
    cells, runs = sweep.empty(), [*sweep.counted(jobs), *sweep.simulated()]
    sources = (requests, independent_requests(requests, seed=seed))
    for place, found in run_all(sources, runs, jobs=jobs, on_progress=on_progress):
        sweep.enter(cells, runs[place], found)
    return sweep.dataset(cells).assign_attrs(seed=seed)


@dataclass(frozen=True)
class _SceneRun(Run[Outcome]):
    """A replay of one cell."""

    source: int
    place: tuple[int, ...]
    policy: Spec
    prefetch: Spec | None
    capacity: int
    scene: Scene
    is_compiled: bool = False

    @property
    def size(self) -> int:
        """One cell."""
        return 1

    def found_in(self, requests: Requests) -> Outcome:
        """What came of it."""
        done = replay(requests, policy=self.policy, prefetch=self.prefetch, capacity=self.capacity, scene=self.scene)
        books = done.ledger
        return Outcome(books.hit_rate, books.misses, books.moved_bytes, done.seconds)


@dataclass(frozen=True)
class _Sweep:
    """The axes of a sweep, and which of its cells can be counted."""

    requests: Requests
    policies: Sequence[Spec]
    prefetchers: Sequence[Spec | None]
    links: Sequence[tuple[str, Scene]]
    precisions: Sequence[tuple[str, int]]
    sizes: Sequence[int]
    fits: NDArray[np.int64]

    def empty(self) -> dict[str, NDArray[np.float64]]:
        """Arrays of the whole sweep, without a number."""
        axes = (_SOURCES, self.policies, self.prefetchers, self.links, self.precisions, self.sizes)
        return {name: np.full([len(axis) for axis in axes], np.nan) for name in _UNITS}

    def counted(self, jobs: int) -> Sequence[Run[Any]]:
        """Runs that count misses, if some cell needs no more."""
        if not any(self._is_counted(guess, scene) for guess in self.prefetchers for _, scene in self.links):
            return []
        return count_runs(self.policies, np.unique(self.fits).tolist(), jobs, len(_SOURCES))

    def simulated(self) -> Iterator[_SceneRun]:
        """Runs of single cells."""
        axes = product(
            enumerate(self.policies), enumerate(self.prefetchers), enumerate(self.links), range(len(self.precisions))
        )
        for (at, policy), (nth, guess), (way, (_, scene)), size in axes:
            if self._is_counted(guess, scene):
                continue
            kinds = [POLICIES.get(policy.name)] + ([] if guess is None else [PREFETCHERS.get(guess.name)])
            if scene.host_rule is not None and any(kind.reads_future for kind in kinds):
                continue
            has_hints = guess is not None and (kinds[-1].needs_ahead or kinds[-1].needs_tokens)
            for source, capacity in product(range(1 if has_hints else 2), range(len(self.sizes))):
                yield _SceneRun(
                    source,
                    (source, at, nth, way, size, capacity),
                    policy,
                    guess,
                    int(self.fits[size, capacity]),
                    self._scene(scene, size),
                )

    def enter(self, cells: Mapping[str, NDArray[np.float64]], run: Run[Any], found: Counts | Outcome) -> None:
        """Put what a run found where it belongs."""
        if isinstance(run, _SceneRun) and isinstance(found, Outcome):
            self._put(cells, run.place, found)
        elif isinstance(found, Counts):
            policy = self.policies.index(found.policy)
            for capacity, misses in zip(found.capacity.tolist(), found.misses.tolist(), strict=True):
                self._enter_misses(cells, run.source, policy, capacity, misses)

    def dataset(self, cells: Mapping[str, NDArray[np.float64]]) -> xr.Dataset:
        """The numbers with their names, units and sources."""
        requests, first = self.requests, self.precisions[0][1]
        arrays = {
            name: (_DIMS, cells[name], {"long_name": words, "units": units}) for name, (words, units) in _UNITS.items()
        }
        knees = np.apply_along_axis(lambda curve: knee_of(self.sizes, curve), -1, cells["hit_rate"])
        about = {"long_name": "room from which more of it brings less than on average", "units": "expert"}
        scenes = [scene for _, scene in self.links]
        hosts = [scene.host_cost.source if scene.host_capacity else "no tier in the host" for scene in scenes]
        return xr.Dataset(
            {**arrays, "knee": (_DIMS[:-1], knees, about)},
            coords={
                "source": list(_SOURCES),
                "policy": [str(spec) for spec in self.policies],
                "prefetch": [str(spec or "none") for spec in self.prefetchers],
                "link": [name for name, _ in self.links],
                "precision": [name for name, _ in self.precisions],
                "capacity": (
                    "capacity",
                    list(self.sizes),
                    {"long_name": f"room, as {self.precisions[0][0]} experts over all layers", "units": "expert"},
                ),
                "cache_bytes": ("capacity", np.array(self.sizes) * float(first), {"units": "B"}),
                "block_bytes": ("precision", [float(size) for _, size in self.precisions], {"units": "B"}),
                "fits": (("precision", "capacity"), self.fits, {"long_name": "experts that fit", "units": "expert"}),
                "link_cost": ("link", [scene.cost.source for scene in scenes]),
                "host_cost": ("link", hosts),
                "host_compute": ("link", [str(scene.host_rule or "nobody computes in the host") for scene in scenes]),
            },
            attrs={
                "over": requests.about,
                "predicted": "simulated from a recorded routing: no time in here was measured",
            },
        )

    def _is_counted(self, guess: Spec | None, scene: Scene) -> bool:
        return guess is None and not scene.host_capacity

    def _scene(self, scene: Scene, precision: int) -> Scene:
        """The machine with experts of another size."""
        size = self.precisions[precision][1]
        if not scene.host_capacity:
            return replace(scene, block_bytes=size)
        if scene.host_rule is not None and size != scene.host_rule.expert_bytes:
            raise ValueError(
                f"experts compute in the host as they lie there, and the rule is for {scene.host_rule.expert_bytes} B, "
                f"got {size} B for {self.precisions[precision][0]}; sweep other precisions without a host_rule"
            )
        host = _fits([scene.host_capacity], {"": self.precisions[0][1], " ": size}, self.requests.num_pages)
        return replace(scene, block_bytes=size, host_capacity=max(1, int(host[1, 0])))

    def _enter_misses(
        self, cells: Mapping[str, NDArray[np.float64]], source: int, policy: int, capacity: int, misses: int
    ) -> None:
        for nth, guess in enumerate(self.prefetchers):
            for way, (_, scene) in enumerate(self.links):
                if not self._is_counted(guess, scene):
                    continue
                for size, at in np.argwhere(self.fits == capacity).tolist():
                    block = self.precisions[size][1]
                    found = Outcome(
                        1 - misses / len(self.requests),
                        misses,
                        misses * block,
                        self._compute_seconds(scene) + misses * scene.cost.seconds(block),
                    )
                    self._put(cells, (source, policy, nth, way, size, at), found)

    def _compute_seconds(self, scene: Scene) -> float:
        of_tokens = scene.token_seconds * float(self.requests.tokens.sum(dtype=np.int64))
        passes = 1 + int((np.diff(self.requests.token) != 0).sum())
        return passes * scene.first_seconds + self.requests.num_sets * scene.layer_seconds + of_tokens

    def _put(self, cells: Mapping[str, NDArray[np.float64]], place: tuple[int, ...], found: Outcome) -> None:
        for name, value in vars(found).items():
            cells[name][place] = value
        seconds = found.seconds
        cells["tokens_per_second"][place] = self.requests.num_tokens / seconds if seconds else np.nan


def _fits(sizes: Sequence[int], block_bytes: Mapping[str, int], most: int) -> NDArray[np.int64]:
    """Experts of every precision that fit into rooms for so many of the first: precisions by rooms."""
    each = np.array(list(block_bytes.values()), np.int64)
    fits: NDArray[np.int64] = np.minimum(np.array(sizes, np.int64) * each[0] // each[:, None], most)
    return fits
