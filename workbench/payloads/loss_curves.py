"""The `/run` group for the view `loss_curves`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.payloads.container import encode
from workbench.payloads.growing import Arrays, Growing
from workbench.payloads.reading import control_events, events_of, group, origin, thin, unit_words, words_of_unit
from workbench.trace.blocks import Block
from workbench.trace.schema import GROUPS, Trace

__all__ = ["grow_loss_curves", "growing_loss_curves", "loss_curves_payload"]

_SERIES = ("loss", "lr", "grad_norm", "tokens_per_second", "wall_seconds")
_NOTHING = "No training step has been recorded in this trace."


def loss_curves_payload(trace: Trace, *, max_points: int = 5000) -> bytes:
    """Training loss, its companions, and held-out loss per domain, for the view `loss_curves`.

    Args:
        trace: with a `run` group; without one the view says that there is nothing to show.
        max_points: recorded steps that are sent; past it, evenly spaced steps, and the view says so. Evaluations are
            always sent whole.
    """
    return encode("loss_curves", *_numbers_of(trace, max_points))


def growing_loss_curves(trace: Trace | None, *, max_points: int = 5000) -> Growing:
    """The same, made to grow; None for a run that has recorded nothing."""
    header, arrays = ({"empty": _NOTHING}, {}) if trace is None else _numbers_of(trace, max_points)
    return Growing("loss_curves", header, arrays, rows_of=_rows_of, max_rows=max_points)


def grow_loss_curves(growing: Growing, block: Block) -> bytes | None:
    """What a block adds; None when it has neither steps nor commands."""
    run, events = block.get("run", {}), events_of(block.get("control", {}))
    if not run and not events:
        return None
    arrays: Arrays = {}
    header: dict[str, Any] = {}
    if run:
        arrays, header["series"] = _steps_of(run, slice(None)), [name for name in _SERIES if name in run]
        header |= {"empty": None, "domains": growing.header.get("domains", []), "units": _units(run)}
    if "eval_loss" in run:
        held_out, header["domains"] = _evaluations(run, [str(name) for name in run["domain"]])
        arrays |= held_out
    return growing.grow(arrays, events=events, header=header)


def _numbers_of(trace: Trace, max_points: int) -> tuple[dict[str, Any], Arrays]:
    dataset = group(trace, "run")
    if dataset is None or dataset.sizes.get("step", 0) == 0 or "loss" not in dataset:
        return {"empty": _NOTHING}, {}
    run = {str(name): array.values for name, array in dataset.variables.items()}
    kept = thin(len(run["step"]), max_points)
    arrays, domains = _steps_of(run, kept), []
    units = {"loss": unit_words(dataset["loss"]), "eval_loss": ""}
    arrays |= {"eval_step": np.zeros(0, np.int32), "eval_loss": np.zeros((0, 0), np.float32)}
    if "eval_loss" in dataset:
        table = dataset["eval_loss"].transpose("step", "domain")
        units["eval_loss"] = unit_words(table)
        held_out, domains = _evaluations(
            {**run, "eval_loss": table.values}, [str(name) for name in table["domain"].values]
        )
        arrays |= held_out
    source = origin(trace, "run")
    if len(kept) < len(run["step"]):
        source["statements"].append(f"Showing {len(kept):,} of {len(run['step']):,} recorded steps, evenly spaced.")
    series = [name for name in _SERIES if name in run]
    return {**source, "series": series, "domains": domains, "units": units, "events": control_events(trace)}, arrays


def _rows_of(name: str) -> str | None:
    return "evaluations" if name.startswith("eval_") else "steps"


def _units(run: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    variables = GROUPS["run"].variables
    known = {name: words_of_unit(str(variables[name].attrs["units"])) for name in ("loss", "eval_loss")}
    return known if "eval_loss" in run else {**known, "eval_loss": ""}


def _steps_of(run: Mapping[str, NDArray[Any]], kept: Any) -> Arrays:
    series = {name: _numbers(run[name][kept]) for name in _SERIES if name in run}
    return {"step": run["step"][kept].astype(np.int32), **series}


def _evaluations(run: Mapping[str, NDArray[Any]], domains: list[str]) -> tuple[Arrays, list[str]]:
    """The steps that were evaluated, all of them."""
    rows = np.flatnonzero(np.isfinite(run["eval_loss"]).any(axis=1))
    return {"eval_step": run["step"][rows].astype(np.int32), "eval_loss": _numbers(run["eval_loss"][rows])}, domains


def _numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as they are; anything else as float64."""
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
