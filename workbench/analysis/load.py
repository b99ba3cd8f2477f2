"""Load of the experts over time, and how uneven it is.

Every number comes from `/load`, which counts all tokens of every step, before capacity; the probe text
is not in it. The unit is (layer, expert).
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from workbench.analysis._labelled import group_of, labelled, one_phase
from workbench.core.check import at_least
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["dead_fraction", "dropped_fraction", "expert_load", "load_variation", "max_violation"]


def expert_load(trace: Trace, *, phase: Phase | None = None, window: int | None = 1) -> xr.DataArray:
    """Share of a layer's assignments that each expert was asked for, per row of `/load`.

    Steps count by their tokens, which is exact where every step asks for as many experts per token.
    A window over a swap holds every expert that existed in it.

    Args:
        phase: what the model was doing; by default the only one recorded.
        window: rows up to and including this one; the first rows have fewer. None takes all since
            the first.

    Returns:
        Share [1] over `step`, `layer`, `expert`; NaN for an expert that did not exist in the window.
        A step is a training step or, in prefill and decode, one forward pass.

    Raises:
        LookupError: no load, or none of this phase.
        ValueError: several phases and none asked for, or a window below 1.
    """
    rows, phase = _rows(trace, phase, window)
    load = rows["load"].values.astype(np.float64)
    exists = ~np.isnan(load)
    if window != 1:
        tokens = rows["tokens"].values.astype(np.float64)[:, None, None]
        share = np.where(exists, load, 0.0) * tokens
        total = exists.any(-1, keepdims=True) * tokens
        some = _trailing(((load > 0) & (tokens > 0)).astype(np.int64), window) > 0
        exists = _trailing(exists.astype(np.int64), window) > 0
        # a difference of running sums leaves a rest where nothing was asked; the count does not.
        share = np.where(some, _trailing(share, window), 0.0)
        load = _ratio(np.where(exists, share, np.nan), _trailing(total, window))
    return _result(rows, load, ("step", "layer", "expert"), phase, window, "expert_load", "load of an expert")


def load_variation(trace: Trace, *, phase: Phase | None = None, window: int | None = 1) -> xr.DataArray:
    """Standard deviation of the load over its mean, per step and layer.

    Args:
        phase: as for `expert_load`.
        window: as for `expert_load`.

    Returns:
        Coefficient of variation [1], 0 for an even load; over `step`, `layer`.
    """
    load, rows, phase = _load(trace, phase, window)
    mean = _mean(load)
    spread = np.sqrt(_mean((load - mean[..., None]) ** 2))
    name = "coefficient of variation of the load"
    return _result(rows, _ratio(spread, mean), ("step", "layer"), phase, window, "load_variation", name)


def max_violation(trace: Trace, *, phase: Phase | None = None, window: int | None = 1) -> xr.DataArray:
    """How far the busiest expert is above the mean: largest load over mean load, less 1.

    With `window=1` it is the violation of each batch; the last row with `window=None` is that of all.

    Args:
        phase: as for `expert_load`.
        window: as for `expert_load`.

    Returns:
        Violation [1], 0 for an even load, E - 1 where one expert takes all; over `step`, `layer`.

    Source: arXiv 2408.15664, MaxVio. The paper also takes the mean over layers.
    """
    load, rows, phase = _load(trace, phase, window)
    largest = np.where(np.isnan(load), -np.inf, load).max(-1, initial=-np.inf)
    values = _ratio(np.where(np.isfinite(largest), largest, np.nan), _mean(load)) - 1
    name = "largest load over mean load, less 1"
    return _result(rows, values, ("step", "layer"), phase, window, "max_violation", name)


def dead_fraction(trace: Trace, *, phase: Phase | None = None, window: int | None = 1) -> xr.DataArray:
    """Share of a layer's experts that nothing asked for in the window.

    A step of few tokens leaves most experts without work: in decode take a wide window.

    Args:
        phase: as for `expert_load`.
        window: as for `expert_load`.

    Returns:
        Share of experts [1] over `step`, `layer`.
    """
    load, rows, phase = _load(trace, phase, window)
    values = _ratio((load == 0).sum(-1).astype(np.float64), (~np.isnan(load)).sum(-1).astype(np.float64))
    return _result(rows, values, ("step", "layer"), phase, window, "dead_fraction", "share of experts without work")


def dropped_fraction(trace: Trace, *, phase: Phase | None = None, window: int | None = 1) -> xr.DataArray:
    """Share of assignments lost to capacity, per step and layer.

    Args:
        phase: as for `expert_load`.
        window: as for `expert_load`.

    Returns:
        Share of the assignments asked for [1] over `step`, `layer`; NaN where none was asked for.
    """
    rows, phase = _rows(trace, phase, window)
    values = rows["dropped_fraction"].values.astype(np.float64)
    if window != 1:
        tokens = rows["tokens"].values.astype(np.float64)[:, None]
        some = _trailing(((values > 0) & (tokens > 0)).astype(np.int64), window) > 0
        lost = np.where(some, _trailing(np.where(np.isnan(values), 0.0, values) * tokens, window), 0.0)
        values = _ratio(lost, _trailing(~np.isnan(values) * tokens, window))
    name = "share of assignments lost to capacity"
    return _result(rows, values, ("step", "layer"), phase, window, "dropped_fraction", name)


def _rows(trace: Trace, phase: Phase | None, window: int | None) -> tuple[xr.Dataset, Phase]:
    if window is not None:
        at_least("window", window, 1, hint="say None for everything since the first step")
    group = group_of(trace, "load", do="record forward passes")
    phase = one_phase(group["phase"].values, phase, what="rows of load")
    return group.isel(step=np.flatnonzero(group["phase"].values == phase)), phase


def _load(
    trace: Trace, phase: Phase | None, window: int | None
) -> tuple[Float[np.ndarray, "steps L Z"], xr.Dataset, Phase]:
    rows, phase = _rows(trace, phase, window)
    return expert_load(trace, phase=phase, window=window).values, rows, phase


def _trailing(values: np.ndarray, window: int | None) -> np.ndarray:
    """Sums over the last rows, this one included."""
    total = values.cumsum(0)
    if window is not None and window < len(values):
        total[window:] -= total[:-window].copy()
    return total


def _mean(load: Float[np.ndarray, "steps L Z"]) -> Float[np.ndarray, "steps L"]:
    """Mean over the experts that exist."""
    exists = ~np.isnan(load)
    return _ratio(np.where(exists, load, 0.0).sum(-1), exists.sum(-1).astype(np.float64))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """One over the other, NaN where the other is 0."""
    known = whole > 0
    return np.asarray(np.where(known, part, np.nan) / np.where(known, whole, 1.0))


def _result(
    rows: xr.Dataset,
    values: np.ndarray,
    dims: tuple[str, ...],
    phase: Phase,
    window: int | None,
    name: str,
    long_name: str,
) -> xr.DataArray:
    each = "all rows so far" if window is None else f"{window} rows at a time"
    tokens = int(rows["tokens"].values.sum())
    coords = {dim: rows[dim].variable for dim in dims if dim in rows.coords}
    over = f"{tokens} {phase} tokens in {rows.sizes['step']} rows of load, {each}"
    coords["phase"] = rows["phase"].variable
    return labelled(values, dims, name=name, long_name=long_name, units="1", over=over, coords=coords)
