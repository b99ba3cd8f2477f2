"""The `/load` group for the view `expert_load`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.payloads.container import encode
from workbench.payloads.growing import Arrays, Growing
from workbench.payloads.reading import control_events, events_of, group, origin, thin
from workbench.trace.blocks import Block
from workbench.trace.schema import PHASES, Trace

__all__ = ["expert_load_payload", "grow_expert_load", "growing_expert_load"]

_NAMES = {"train": "training", "eval": "evaluation", "prefill": "prompt", "decode": "generation"}
_EXTRAS = ("entropy", "cv", "dead_fraction", "dropped_fraction")
_NOTHING = "No load of experts has been recorded in this trace."
_MEANING = "Fair share is one divided by the number of experts in the layer. An average weighs each step by its tokens."


def expert_load_payload(trace: Trace, *, max_cells: int = 100_000) -> bytes:
    """Load of every expert at recorded steps, and running sums over all of them, for the view `expert_load`.

    Training, evaluation, prefill and decode stay apart. The sums run over every recorded step, so a mean over a window
    is exact even when the steps between are not sent.

    Args:
        trace: with a `load` group; without one the view says that there is nothing to show.
        max_cells: step x layer x expert values that are sent, 20 bytes each; past it, evenly spaced steps, and the
            view says so.
    """
    return encode("expert_load", *_numbers_of(trace, max_cells))


def growing_expert_load(trace: Trace | None, *, max_cells: int = 100_000) -> Growing:
    """The same, made to grow; None for a run that has recorded nothing."""
    header, arrays = ({"empty": _NOTHING}, {}) if trace is None else _numbers_of(trace, max_cells)
    for name in [name for name in arrays if name.endswith(".count")]:
        arrays[name] = np.broadcast_to(arrays[name], arrays[name.replace(".count", ".total")].shape)
    cells = next((array[0].size for name, array in arrays.items() if name.endswith(".load")), 64)
    return Growing("expert_load", header, arrays, rows_of=_rows_of, max_rows=max(2, max_cells // cells))


def grow_expert_load(growing: Growing, block: Block) -> bytes | None:
    """What a block adds; None when it has neither loads nor commands."""
    load, events = block.get("load", {}), events_of(block.get("control", {}))
    if not load and not events:
        return None
    arrays: Arrays = {}
    present = [name for name in PHASES if load and (load["phase"] == name).any()]
    phases = [name for name in PHASES if name in {*growing.header.get("phases", []), *present}]
    for name in present:
        part = {key: load[key][load["phase"] == name] for key in ("step", "tokens", "load", *_EXTRAS) if key in load}
        rows = _rows(part, growing, name)
        arrays |= {f"{name}.{key}": values for key, values in rows.items()}
    header: dict[str, Any] = {"phases": phases, "extras": [name for name in _EXTRAS if name in load]} if load else {}
    if present:
        arrays["layer"] = np.arange(load["load"].shape[1], dtype=np.int32)
        header |= {"empty": None, "statements": growing.header.get("statements") or [_MEANING]}
    return growing.grow(arrays, events=events, header=header)


def _rows_of(name: str) -> str | None:
    return name.split(".")[0] if "." in name else None


def _rows(part: Mapping[str, NDArray[Any]], growing: Growing, phase: str) -> Arrays:
    """New rows of a phase, with running sums that go on from those that were sent."""
    load = part["load"].astype(np.float32, copy=False)
    counted, summed = _weighed(load, part["tokens"])
    before = {key: growing.last(f"{phase}.{key}") for key in ("row", "total", "count")}
    total, count = summed.cumsum(0), counted.cumsum(0)
    if before["total"] is not None and before["count"] is not None:
        total, count = _after(before["total"], total), _after(before["count"], count)
    first = 0 if before["row"] is None else int(before["row"]) + 1
    extras = {name: part[name].astype(np.float32, copy=False) for name in _EXTRAS if name in part}
    return {
        "step": part["step"].astype(np.int32),
        "row": np.arange(first, first + len(load), dtype=np.int32),
        "tokens": part["tokens"].astype(np.float64),
        "load": load,
        "total": total,
        "count": count,
        **extras,
    }


def _after(before: NDArray[np.float64], added: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running sums after those of earlier rows, whose layers may have had fewer experts."""
    wide = np.zeros(added.shape[1:])
    width = min(before.shape[1], wide.shape[1])
    wide[:, :width] = before[:, :width]
    return wide + added


def _weighed(load: NDArray[np.float32], tokens: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tokens that count, and load times tokens, by step, layer and expert."""
    finite = np.isfinite(load)
    counted = np.where(finite, np.maximum(tokens.astype(np.float64), 1)[:, None, None], 0)
    return counted, np.where(finite, load * counted, 0)


def _numbers_of(trace: Trace, max_cells: int) -> tuple[dict[str, Any], Arrays]:
    dataset = group(trace, "load")
    if dataset is None or 0 in (dataset.sizes.get(dim, 0) for dim in ("step", "layer", "expert")):
        return {"empty": _NOTHING}, {}
    load = dataset.transpose("step", "layer", "expert", ...)
    phase = load["phase"].values if "phase" in load.coords else np.full(load.sizes["step"], "train")
    present = [name for name in PHASES if (phase == name).any()]
    arrays: Arrays = {"layer": load["layer"].values.astype(np.int32)}
    extras = [name for name in _EXTRAS if name in load]
    source = origin(trace, "load")
    for name in present:
        part = {key: load[key].values[phase == name] for key in ("step", "tokens", "load", *extras) if key in load}
        found = _phase_arrays(part, extras, max_cells // len(present))
        arrays |= {f"{name}.{key}": values for key, values in found.items()}
        sent, recorded = len(found["step"]), len(part["step"])
        if sent < recorded:
            source["statements"].append(
                f"Showing {sent:,} of {recorded:,} recorded {_NAMES[name]} steps, evenly spaced; "
                "averages count every recorded step."
            )
    source["statements"].append(_MEANING)
    return {**source, "phases": present, "extras": extras, "events": control_events(trace)}, arrays


def _phase_arrays(part: Mapping[str, NDArray[Any]], extras: list[str], max_cells: int) -> Arrays:
    """Loads at kept steps; sums of load x tokens and of tokens over every recorded step up to each of them."""
    load = part["load"].astype(np.float32, copy=False)
    kept = thin(len(load), max(2, max_cells // load[0].size))
    tokens = part["tokens"].astype(np.float64) if "tokens" in part else np.ones(len(load))
    counted, summed = _weighed(load, tokens)
    arrays = {
        "step": part["step"][kept].astype(np.int32),
        "row": kept.astype(np.int32),
        "tokens": tokens[kept],
        "load": load[kept],
        "total": summed.cumsum(0)[kept],
        "count": _shared_over_experts(counted.cumsum(0)[kept]),
    }
    return arrays | {name: part[name][kept].astype(np.float32, copy=False) for name in extras}


def _shared_over_experts(count: NDArray[np.float64]) -> NDArray[np.float64]:
    """One count per layer where all its experts have the same, which is nearly always."""
    return count[..., :1] if (count == count[..., :1]).all() else count
