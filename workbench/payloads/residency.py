"""The `/residency` group for the view `residency`."""

import numpy as np

from workbench.payloads.container import encode
from workbench.payloads.reading import group, offload_terms, origin, thin
from workbench.trace.schema import TIERS, Trace

__all__ = ["residency_payload"]

_NOTHING = "This run keeps every expert in memory: no offload."
_SOURCE = "Recorded by the offload engine (/residency): where the weights of every expert were."


def residency_payload(trace: Trace, *, max_cells: int = 2_000_000) -> bytes:
    """Where each expert's weights were, at recorded steps: on the device, in the host's memory or on disk.

    Args:
        trace: with a `residency` group; without one the view says that nothing is offloaded.
        max_cells: sample x layer x expert values that are sent, a byte each; past it, evenly spaced samples, and the
            view says so.
    """
    dataset = group(trace, "residency")
    if dataset is None or 0 in (dataset.sizes.get(dim, 0) for dim in ("sample", "layer", "expert")):
        return encode("residency", {"empty": _NOTHING}, {})
    tier = dataset["tier"].transpose("sample", "layer", "expert").values.astype(np.int8, copy=False)
    kept = thin(len(tier), max(2, max_cells // tier[0].size))
    source = origin(trace, "residency", source=_SOURCE)
    if len(kept) < len(tier):
        source["statements"].append(f"Showing {len(kept):,} of {len(tier):,} recorded samples, evenly spaced.")
    arrays = {
        "tier": tier[kept],
        "step": dataset["step"].values[kept].astype(np.int32),
        "sample": kept.astype(np.int32),
        "layer": dataset["layer"].values.astype(np.int32),
    }
    header = {"tiers": list(TIERS), **offload_terms(trace)}
    return encode("residency", {**source, **header}, arrays)
