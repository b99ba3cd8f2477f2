"""A part of a trace, as a trace: what every measure of this package can be taken over."""

import numpy as np
import xarray as xr

from workbench.core.check import one_of
from workbench.core.context import Phase
from workbench.trace.schema import PHASES, Trace

__all__ = ["only"]


def only(
    trace: Trace,
    *,
    phase: Phase | None = None,
    steps: range | None = None,
    iteration: int | None = None,
    is_kept: bool = False,
) -> Trace:
    """The same trace with fewer tokens, sites or assignments; what is None stays whole.

    `/routing` and `/load` are cut, the other groups stay as they are. `/load` is not recorded by
    iteration or by assignment, so these two leave it whole.

    Args:
        phase: what the model was doing.
        steps: which steps; `range(100, 200)` ends with step 199.
        iteration: pass through the same layer, for layers that run more than once.
        is_kept: True empties the slots of assignments that were lost to capacity.

    Raises:
        ValueError: no such phase.
        LookupError: nothing is left of the routing.
    """
    if phase is not None:
        one_of("phase", phase, PHASES)
    groups = {name: node.to_dataset(inherit=False) for name, node in trace.children.items()}
    if "load" in groups:
        groups["load"] = groups["load"].isel(step=_rows(groups["load"], phase, steps))
    if "routing" in groups:
        groups["routing"] = _routing(groups["routing"], phase, steps, iteration, is_kept)
    cut = xr.DataTree.from_dict(groups)
    cut.attrs.update(trace.attrs)
    return cut


def _routing(
    routing: xr.Dataset, phase: Phase | None, steps: range | None, iteration: int | None, is_kept: bool
) -> xr.Dataset:
    sites = np.ones(routing.sizes["site"], bool) if iteration is None else routing["iteration"].values == iteration
    cut = routing.isel(site=np.flatnonzero(sites), token=_rows(routing, phase, steps))
    if 0 in (cut.sizes["site"], cut.sizes["token"]):
        asked = {"phase": phase, "steps": steps, "iteration": iteration}
        asked = {name: value for name, value in asked.items() if value is not None}
        recorded = np.unique(routing["step"].values)
        span = f"steps {recorded[0]} to {recorded[-1]}" if recorded.size else "no step"
        phases = ", ".join(dict.fromkeys(routing["phase"].values.tolist())) or "no phase"
        iterations = sorted(set(routing["iteration"].values.tolist()))
        raise LookupError(
            f"no routing is left for {', '.join(f'{name}={value}' for name, value in asked.items()) or 'anything'}; "
            f"the trace has {span}, {phases}, iterations {iterations}"
        )
    if is_kept:
        kept = cut["kept"]
        cut = cut.assign(
            expert=cut["expert"].where(kept, np.int16(-1)).assign_attrs(cut["expert"].attrs),
            weight=cut["weight"].where(kept, np.float32(0)).assign_attrs(cut["weight"].attrs),
        )
    return cut


def _rows(data: xr.Dataset, phase: Phase | None, steps: range | None) -> np.ndarray:
    """Indices of the rows of a phase and of some steps."""
    step = data["step"].values
    wanted = np.ones(step.shape, bool) if phase is None else data["phase"].values == phase
    if steps is not None:
        wanted &= np.isin(step, np.asarray(steps))
    return np.flatnonzero(wanted)
