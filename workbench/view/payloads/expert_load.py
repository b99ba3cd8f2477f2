"""The `/load` group for the view `expert_load`."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.trace.schema import PHASES, Trace
from workbench.view.container import encode
from workbench.view.payloads._reading import control_events, group, origin, thin

__all__ = ["expert_load_payload"]

_NAMES = {"train": "training", "eval": "evaluation", "prefill": "prompt", "decode": "generation"}
_EXTRAS = ("entropy", "cv", "dead_fraction", "dropped_fraction")


def expert_load_payload(trace: Trace, *, max_cells: int = 100_000) -> bytes:
    """Load of every expert at recorded steps, and running sums over all of them, for the view `expert_load`.

    Training, evaluation, prefill and decode stay apart. The sums run over every recorded step, so a mean over a window
    is exact even when the steps between are not sent.

    Args:
        trace: with a `load` group; without one the view says that there is nothing to show.
        max_cells: step x layer x expert values that are sent, 20 bytes each; past it, evenly spaced steps, and the
            view says so.
    """
    dataset = group(trace, "load")
    if dataset is None or 0 in (dataset.sizes.get(dim, 0) for dim in ("step", "layer", "expert")):
        return encode("expert_load", {"empty": "No load of experts has been recorded in this trace."}, {})
    phase = dataset["phase"].values if "phase" in dataset.coords else np.full(dataset.sizes["step"], "train")
    present = [name for name in PHASES if (phase == name).any()]
    arrays: dict[str, NDArray[Any]] = {"layer": dataset["layer"].values.astype(np.int32)}
    extras = [name for name in _EXTRAS if name in dataset]
    source = origin(trace, "load")
    for name in present:
        part = dataset.isel(step=np.flatnonzero(phase == name))
        found = _phase_arrays(part, extras, max_cells // len(present))
        arrays |= {f"{name}.{key}": values for key, values in found.items()}
        sent, recorded = len(found["step"]), part.sizes["step"]
        if sent < recorded:
            source["statements"].append(
                f"Showing {sent:,} of {recorded:,} recorded {_NAMES[name]} steps, evenly spaced; "
                "averages count every recorded step."
            )
    source["statements"].append(
        "Fair share is one divided by the number of experts in the layer. An average weighs each step by its tokens."
    )
    header = {**source, "phases": present, "extras": extras, "events": control_events(trace)}
    return encode("expert_load", header, arrays)


def _phase_arrays(part: xr.Dataset, extras: list[str], max_cells: int) -> dict[str, NDArray[Any]]:
    """Loads at kept steps; sums of load x tokens and of tokens over every recorded step up to each of them."""
    load = part["load"].transpose("step", "layer", "expert").values.astype(np.float32, copy=False)
    kept = thin(len(load), max(2, max_cells // load[0].size))
    tokens = part["tokens"].values.astype(np.float64) if "tokens" in part else np.ones(len(load))
    finite = np.isfinite(load)
    counted = np.where(finite, np.maximum(tokens, 1)[:, None, None], 0)
    arrays = {
        "step": part["step"].values[kept].astype(np.int32),
        "row": kept.astype(np.int32),
        "tokens": tokens[kept],
        "load": load[kept],
        "total": np.where(finite, load * counted, 0).cumsum(0)[kept],
        "count": _shared_over_experts(counted.cumsum(0)[kept]),
    }
    return arrays | {
        name: part[name].transpose("step", "layer").values[kept].astype(np.float32, copy=False) for name in extras
    }


def _shared_over_experts(count: NDArray[np.float64]) -> NDArray[np.float64]:
    """One count per layer where all its experts have the same, which is nearly always."""
    return count[..., :1] if (count == count[..., :1]).all() else count
