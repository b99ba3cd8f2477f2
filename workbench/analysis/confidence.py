"""How sure a router was of each token: entropy, largest weight, margin to the next expert."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from workbench.analysis._choices import Choices, choices
from workbench.analysis._labelled import labelled
from workbench.core.check import one_of
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["choice_entropy", "choice_margin", "top_weight"]


def choice_entropy(
    trace: Trace,
    *,
    of: Literal["weight", "prob"] = "weight",
    phase: Phase | None = None,
    is_probe: bool = False,
) -> xr.DataArray:
    """Entropy of each token's weights or probabilities.

    Weights are taken as shares of the token's total, by magnitude, so a token with one expert has 0.
    Probabilities span all experts; without them see the attribute `missing`.

    Args:
        of: `prob` needs a trace recorded with probabilities.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Entropy [nat] over `layer`, `token`, from 0 to the logarithm of the number of experts; NaN
        where the token has no expert, or no probability was recorded.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    one_of("of", of, ("weight", "prob"))
    found = choices(trace, phase=phase, is_probe=is_probe)
    if of == "prob":
        values = _by_layer(found, _spread)
        return _result(found, values, "choice_entropy", "entropy of a token's probabilities", "nat", is_scored=True)
    size = np.abs(found.weight)
    total = size.sum(-1, keepdims=True)
    values = np.where(total[..., 0] > 0, _entropy(size / np.where(total > 0, total, 1.0)), np.nan)
    return _result(found, values, "choice_entropy", "entropy of a token's weights", "nat")


def top_weight(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """The largest factor that an expert's output of each token was multiplied by, by magnitude.

    It is the weight as the router gave it; where weights are divided by their sum, one expert per
    token makes it 1 always.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Weight [1] over `layer`, `token`; NaN where the token has no expert.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    size = np.where(found.expert >= 0, np.abs(found.weight), -np.inf).max(-1, initial=-np.inf)
    values = np.where(np.isfinite(size), size, np.nan)
    return _result(found, values, "top_weight", "largest weight of a token", "1")


def choice_margin(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Probability of the least probable chosen expert less that of the most probable one left out.

    Close to 0 a small change of the token would change its experts. Below 0 the choice was not made
    by probability alone: by a bias, by capacity, by noise, or by the experts.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Difference of probabilities [1] over `layer`, `token`; NaN where no probability was recorded
        (the attribute `missing` says of how many), and where all experts or none were chosen.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    values = _by_layer(found, _margin)
    name = "probability of the last chosen expert less that of the first left out"
    return _result(found, values, "choice_margin", name, "1", is_scored=True)


def _entropy(share: Float[np.ndarray, "*any Z"]) -> Float[np.ndarray, "*any"]:
    positive = np.where(share > 0, share, 1.0)
    return np.asarray(-(positive * np.log(positive)).sum(-1))


def _spread(prob: Float[np.ndarray, "T Z"], expert: Int[np.ndarray, "T K"]) -> Float[np.ndarray, "T"]:
    return np.where(np.isnan(prob).all(-1), np.nan, _entropy(prob))


def _margin(prob: Float[np.ndarray, "T Z"], expert: Int[np.ndarray, "T K"]) -> Float[np.ndarray, "T"]:
    token, slot = np.nonzero((expert >= 0) & (expert < prob.shape[1]))
    chosen = np.zeros(prob.shape, bool)
    chosen[token, expert[token, slot]] = True
    known = ~np.isnan(prob)
    least = np.where(chosen & known, prob, np.inf).min(-1, initial=np.inf)
    most = np.where(~chosen & known, prob, -np.inf).max(-1, initial=-np.inf)
    both = np.isfinite(least) & np.isfinite(most)
    return np.where(both, np.where(both, least, 0.0) - np.where(both, most, 0.0), np.nan)


def _by_layer(
    found: Choices,
    measure: Callable[[Float[np.ndarray, "T Z"], Int[np.ndarray, "T K"]], Float[np.ndarray, "T"]],
) -> Float[np.ndarray, "L T"]:
    """A measure of probabilities, one layer at a time: they are the largest part of a trace."""
    values = np.full(found.is_routed.shape, np.nan)
    if "prob" not in found.routing:
        return values
    prob = found.routing["prob"].values
    for layer, routed in enumerate(found.is_routed):
        of_layer = prob[found.site[layer][routed], found.row[routed]].astype(np.float64)
        values[layer, routed] = measure(of_layer, found.expert[layer][routed])
    return values


def _missing(found: Choices) -> str:
    """How many decisions came without probabilities, in words."""
    decisions = int(found.is_routed.sum())
    known = _by_layer(found, lambda prob, expert: np.where(np.isnan(prob).all(-1), np.nan, 1.0))
    missing = decisions - int(np.nansum(known))
    if not missing:
        return "none"
    return f"{missing} of {decisions} decisions have no probabilities; record with Sampling(prob=True)"


def _result(
    found: Choices, values: Float[np.ndarray, "L T"], name: str, long_name: str, units: str, *, is_scored: bool = False
) -> xr.DataArray:
    facts = {"missing": _missing(found)} if is_scored else None
    return labelled(
        values,
        ("layer", "token"),
        name=name,
        long_name=long_name,
        units=units,
        over=found.over,
        coords=found.coords("layer", "token"),
        facts=facts,
    )
