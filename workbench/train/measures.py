"""What a comparison measures of a trained model, from the traces of its training and of its held-out pass."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from workbench.analysis.drift import fluctuation
from workbench.analysis.load import dead_fraction, dropped_fraction, load_variation, max_violation
from workbench.analysis.select import only
from workbench.analysis.specialise import Label, specialisation
from workbench.trace.schema import Trace

__all__ = ["MEASURES", "Measure", "held_out_measures", "training_measures"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a run.

    Args:
        heading: of its column.
        text: what it is.
        units: of the number as stored.
        scale: stored number times this is shown.
        digits: shown after the point.
    """

    heading: str
    text: str
    units: str
    scale: float = 1.0
    digits: int = 2


MEASURES: Mapping[str, Measure] = {
    "active_experts": Measure(
        heading="experts per token",
        text="experts of the model that compute a held-out token, mean over layers, extra experts not counted",
        units="1",
    ),
    "flops_per_token": Measure(
        heading="MFLOP per token",
        text="forward pass of a held-out token, counted from shapes",
        units="FLOP",
        scale=1e-6,
    ),
    "tokens_per_second": Measure(
        heading="tokens/s", text="training speed, median over steps, in this company", units="token/s", digits=0
    ),
    "load_cv": Measure(
        heading="load CV", text="standard deviation of the held-out load over its mean, mean over layers", units="1"
    ),
    "max_over_mean": Measure(
        heading="max/mean load", text="busiest expert's held-out load over the mean, mean over layers", units="1"
    ),
    "dead_experts": Measure(
        heading="dead experts", text="share of experts that no held-out token asked for", units="1"
    ),
    "entropy": Measure(
        heading="entropy",
        text="of a held-out token's probabilities over experts, mean over tokens and layers",
        units="nat",
    ),
    "dropped": Measure(
        heading="dropped", text="share of training assignments lost to capacity, last quarter of the steps", units="1"
    ),
    "fluctuation": Measure(
        heading="fluctuation",
        text="share of the probe text's assignments that moved between its last two recordings",
        units="1",
    ),
    "domain_specialisation": Measure(
        heading="by domain",
        text="mutual information of expert and domain, held-out: 0 by chance, 1 at most; mean over layers",
        units="1",
    ),
    "token_specialisation": Measure(
        heading="by token id",
        text="mutual information of expert and token id, held-out: 0 by chance, 1 at most; mean over layers",
        units="1",
    ),
}


def held_out_measures(trace: Trace) -> dict[str, float]:
    """Measures of a held-out pass in phase prefill; a mean over layers each, NaN where the router gives nothing."""
    whole = {
        "load_cv": load_variation(trace, phase="prefill", window=None).isel(step=-1),
        "max_over_mean": 1 + max_violation(trace, phase="prefill", window=None).isel(step=-1),
        "dead_experts": dead_fraction(trace, phase="prefill", window=None).isel(step=-1),
        "domain_specialisation": _specialisation(trace, "domain"),
        "token_specialisation": _specialisation(trace, "token_id"),
    }
    load = trace["load"].to_dataset()
    is_prefill = load["phase"].values == "prefill"
    tokens = load["tokens"].values[is_prefill, None].astype(np.float64)
    entropy = (load["entropy"].values[is_prefill] * tokens).sum() / (tokens.sum() * load.sizes["layer"])
    return {"entropy": float(entropy), **{name: float(value.mean()) for name, value in whole.items()}}


def _specialisation(trace: Trace, by: Label) -> xr.DataArray:
    try:
        return specialisation(only(trace, iteration=0), by=by, phase="prefill")
    except LookupError:
        # one domain only, or too little text to tell specialisation from chance.
        return xr.DataArray(np.nan)


def training_measures(trace: Trace) -> dict[str, float]:
    """Measures of a run's own trace: its speed, what capacity cost, and how far the probe's routing still moved."""
    dropped = dropped_fraction(trace, phase="train")
    late = dropped.isel(step=slice(-max(1, dropped.sizes["step"] // 4), None))
    probe = trace["routing"].to_dataset().isel(token=trace["routing"]["is_probe"].values)
    is_seen_twice = len(set(probe["step"].values.tolist())) > 1
    moved = fluctuation(only(trace, iteration=0)).isel(step=-1) if is_seen_twice else xr.DataArray(np.nan)
    return {
        "tokens_per_second": float(np.median(trace["run"]["tokens_per_second"].values)),
        "dropped": float(late.mean()),
        "fluctuation": float(moved.mean()),
    }
