"""How often the router that acts and the one that watches choose the same experts."""

import numpy as np
import xarray as xr

from workbench.analysis._choices import Choices, choices
from workbench.analysis._labelled import labelled, measured
from workbench.analysis._overlap import Unit, overlap, share
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["shadow_agreement", "shadow_confusion"]


def shadow_agreement(
    trace: Trace, *, unit: Unit = "assignment", phase: Phase | None = None, is_probe: bool = False
) -> xr.DataArray:
    """Share of the routing on which the active and the shadow router agree, token by token.

    Two routers that have nothing to do with each other and load their experts evenly agree on K/E.
    Tokens that only one of them saw are left out.

    Args:
        unit: `assignment` for the share of assignments, against the larger of the two sets; `first`
            and `set` for the share of tokens with the same expert of largest weight, or the same set.
        phase: what the model was doing; by default the only one in which a shadow watched.
        is_probe: take the fixed probe text instead.

    Returns:
        Share [1] over `step`, `layer`; NaN where neither chose an expert or no shadow watched.
        `tokens` counts those that both saw. A shadow sees what the active router makes of the text:
        its layers above follow the active router's outputs, not its own.

    Raises:
        LookupError: no shadow router, or no tokens of this phase that it saw.
        ValueError: several phases and none asked for.
    """
    watching = choices(trace, phase=phase, is_probe=is_probe, is_shadow=True)
    acting = choices(trace, phase=watching.phase, is_probe=is_probe)
    pair = _aligned(acting, watching)
    one, two = (side.first() if unit == "first" else side for side in pair)
    shared, most = overlap(one.expert, two.expert, unit=unit)
    both = one.is_routed & two.is_routed
    if not both.any():
        raise LookupError("the shadow router and the active one have no layer and token in common")
    steps, at = np.unique(one.token("step"), return_inverse=True)
    sums = [np.stack([np.bincount(at, row, len(steps)) for row in part * both], 1) for part in (shared, most, both)]
    of = {"assignment": "assignments", "first": "first experts of tokens"}.get(unit, "sets of experts of tokens")
    return labelled(
        share(sums[0], sums[1]),
        ("step", "layer"),
        name="shadow_agreement",
        long_name=f"share of {of} on which the active and the shadow router agree",
        units="1",
        over=f"{one.over}; shadow: {two.over}",
        coords={
            "step": steps,
            **one.coords("layer"),
            "tokens": measured(("step", "layer"), sums[2], "seen by both", "token"),
        },
    )


def shadow_confusion(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.Dataset:
    """Which expert the shadow router takes where the active one takes another, and how busy both make them.

    Args:
        phase: what the model was doing; by default the only one in which a shadow watched.
        is_probe: take the fixed probe text instead.

    Returns:
        `tokens` [token] over `layer`, `expert`, `other`: tokens whose expert of largest weight is `expert` for the
        active router and `other` for the shadow. `load` [1] over `layer`, `expert`, `router` (active, shadow): share
        of the assignments of the same tokens; NaN where there are none, or for an expert that does not exist.

    Raises:
        LookupError: no shadow router, or no tokens of this phase that it saw.
        ValueError: several phases and none asked for.
    """
    watching = choices(trace, phase=phase, is_probe=is_probe, is_shadow=True)
    one, two = _aligned(choices(trace, phase=watching.phase, is_probe=is_probe), watching)
    width = max(one.width, two.width)
    both = one.is_routed & two.is_routed
    here, there = (np.where(both, side.first().expert[..., 0], -1) for side in (one, two))
    counted = np.stack([_table(first, second, width) for first, second in zip(here, there, strict=True)])
    shares = [_load(np.where(both[..., None], side.expert, -1), width) for side in (one, two)]
    exists = [np.arange(width) < side.num_experts[:, None] for side in (one, two)]
    load = np.stack([np.where(held, part, np.nan) for held, part in zip(exists, shares, strict=True)], -1)
    over = f"{one.over}; shadow: {two.over}"
    return xr.Dataset(
        {
            "tokens": (
                ("layer", "expert", "other"),
                counted,
                {"units": "token", "long_name": "first expert of the active router, and of the shadow", "over": over},
            ),
            "load": (
                ("layer", "expert", "router"),
                load,
                {"units": "1", "long_name": "share of the assignments of the same tokens", "over": over},
            ),
        },
        coords={"layer": one.layer, "router": ["active", "shadow"]},
    )


def _table(first: np.ndarray, second: np.ndarray, width: int) -> np.ndarray:
    """Tokens of each pair of experts."""
    chosen = (first >= 0) & (second >= 0)
    code = first[chosen] * width + second[chosen]
    return np.bincount(code, minlength=width * width).reshape(width, width)


def _load(expert: np.ndarray, width: int) -> np.ndarray:
    counts = np.stack([np.bincount(layer[layer >= 0], minlength=width) for layer in expert]).astype(np.float64)
    total = counts.sum(-1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def _aligned(one: Choices, two: Choices) -> tuple[Choices, Choices]:
    """The tokens and layers that both have."""
    _, first, second = np.intersect1d(one.row, two.row, assume_unique=True, return_indices=True)
    _, here, there = np.intersect1d(one.layer, two.layer, assume_unique=True, return_indices=True)
    return one.at(first).at_layers(here), two.at(second).at_layers(there)
