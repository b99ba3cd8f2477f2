"""The `/run` group for the view `loss_curves`."""

import numpy as np

from workbench.trace.schema import Trace
from workbench.view.container import encode
from workbench.view.payloads._reading import control_events, group, origin, thin, unit_words

__all__ = ["loss_curves_payload"]

_SERIES = ("loss", "lr", "grad_norm", "tokens_per_second", "wall_seconds")


def loss_curves_payload(trace: Trace, *, max_points: int = 5000) -> bytes:
    """Training loss, its companions, and held-out loss per domain, for the view `loss_curves`.

    Args:
        trace: with a `run` group; without one the view says that there is nothing to show.
        max_points: recorded steps that are sent; past it, evenly spaced steps, and the view says so. Evaluations are
            always sent whole.
    """
    run = group(trace, "run")
    if run is None or run.sizes.get("step", 0) == 0 or "loss" not in run:
        return encode("loss_curves", {"empty": "No training step has been recorded in this trace."}, {})
    steps = run["step"].values
    kept = thin(len(steps), max_points)
    series = [name for name in _SERIES if name in run]
    arrays = {"step": steps[kept].astype(np.int32)}
    arrays |= {name: _numbers(run[name].values[kept]) for name in series}
    domains: list[str] = []
    units = {"loss": unit_words(run["loss"]), "eval_loss": ""}
    held_out = np.zeros((0, 0), np.float32)
    rows = np.zeros(0, np.int64)
    if "eval_loss" in run:
        table = run["eval_loss"].transpose("step", "domain")
        domains = [str(name) for name in table["domain"].values]
        units["eval_loss"] = unit_words(table)
        rows = np.flatnonzero(np.isfinite(table.values).any(axis=1))
        held_out = _numbers(table.values[rows])
    arrays |= {"eval_step": steps[rows].astype(np.int32), "eval_loss": held_out}
    source = origin(trace, "run")
    if len(kept) < len(steps):
        source["statements"].append(f"Showing {len(kept):,} of {len(steps):,} recorded steps, evenly spaced.")
    header = {**source, "series": series, "domains": domains, "units": units, "events": control_events(trace)}
    return encode("loss_curves", header, arrays)


def _numbers(values: np.ndarray) -> np.ndarray:
    """Floats as they are; anything else as float64."""
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
