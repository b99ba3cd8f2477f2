"""How every result says what it is: name, unit, and what it was taken over."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.core.check import one_of
from workbench.core.context import Phase
from workbench.trace.schema import PHASES, Trace

LAYER = "index among the MoE layers"
EXPERT = "index within the layer, extras after the model's own"


def labelled(
    values: np.ndarray,
    dims: Sequence[str],
    *,
    name: str,
    long_name: str,
    units: str,
    over: str,
    coords: Mapping[str, Any] | None = None,
    facts: Mapping[str, str | int | float] | None = None,
) -> xr.DataArray:
    """An array with its attributes.

    Args:
        over: which tokens, layers and routers it was taken over.
        facts: further attributes.
    """
    attrs = {"long_name": long_name, "units": units, "over": over, **(facts or {})}
    return xr.DataArray(values, dims=tuple(dims), name=name, attrs=attrs, coords=dict(coords or {}))


def measured(dims: str | tuple[str, ...], values: np.ndarray, long_name: str, units: str) -> xr.Variable:
    """A coordinate that carries a number with its unit."""
    return xr.Variable(dims, values, {"long_name": long_name, "units": units})


def group_of(trace: Trace, name: str, *, do: str) -> xr.Dataset:
    """One group.

    Raises:
        LookupError: the trace does not hold it; the message ends with what to do.
    """
    if name not in trace.children:
        held = ", ".join(f"/{child}" for child in trace.children) or "nothing"
        raise LookupError(f"the trace has no /{name}, it holds {held}; {do}")
    return trace.children[name].to_dataset(inherit=False)


def one_phase(recorded: np.ndarray, phase: Phase | None, *, what: str) -> Phase:
    """The phase that was asked for or, by default, the only one there is.

    Raises:
        ValueError: no such phase, or several are recorded and none was asked for.
        LookupError: nothing was recorded in it.
    """
    found, counts = np.unique(recorded, return_counts=True)
    held = ", ".join(f"{count} {name}" for name, count in zip(found.tolist(), counts.tolist(), strict=True))
    if phase is None:
        if len(found) > 1:
            choices = " or ".join(f"phase={name!r}" for name in found.tolist())
            raise ValueError(f"phases are never mixed, and the trace holds {held} {what}; say {choices}")
        if not len(found):
            raise LookupError(f"the trace holds no {what}; record some first")
        phase = found.tolist()[0]
    one_of("phase", str(phase), PHASES)
    if phase not in found.tolist():
        raise LookupError(f"the trace holds no {what} of {phase}; it holds {held or 'none'}")
    return phase
