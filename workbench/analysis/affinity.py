"""Which experts go together: within a layer, and from one layer to the next.

The unit is (layer, expert): nothing is added up over layers.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from workbench.analysis._choices import Choices, choices
from workbench.analysis._labelled import labelled, measured
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["co_activation", "layer_affinity", "layer_transition", "pair_affinity"]

_ROUNDS = 2000
_CLOSE = 1e-12


def co_activation(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Share of a layer's tokens that two experts both serve; on the diagonal, that the expert serves.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Share of tokens [1] over `layer`, `expert`, `other`; symmetric; NaN for experts that a layer
        does not have.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    tokens = found.is_routed.sum(1)[:, None, None]
    values = np.where(tokens > 0, _together(found) / np.maximum(tokens, 1), np.nan)
    return _of_pairs(found, values, "co_activation", "share of tokens that both experts serve")


def pair_affinity(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """How often two experts serve the same token, over how often they would if choices were independent.

    A token that takes one expert has a slot less for the others, so the product of the two rates
    expects too much: over it, two of E experts drawn at random would have E / (2E - 2), about one
    half. What is expected here is the product form `r[a] r[b]`, `a != b`,
    in which every expert meets as many others as it does in the trace (quasi-independence).

    Few tokens make it noisy: with `expected` pairs, by about one over its square root.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Ratio [1] over `layer`, `expert`, `other`: 1 if independent, above 1 for experts that go
        together, 0 if they never do. NaN on the diagonal, where nothing is expected (one expert per
        token, an expert without work), and for experts that a layer does not have. The coordinate
        `expected` holds the number of tokens expected.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    together = _together(found)
    diagonal = np.arange(found.width)
    together[:, diagonal, diagonal] = 0.0
    expected = _quasi_independent(together.sum(-1))
    possible = expected > _CLOSE
    values = np.where(possible, together / np.where(possible, expected, 1.0), np.nan)
    result = _of_pairs(found, values, "pair_affinity", "pairs of experts at the same token, over what is expected")
    dims = ("layer", "expert", "other")
    return result.assign_coords(expected=measured(dims, expected, "pairs expected if independent", "token"))


def layer_transition(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Where the tokens of an expert go in the next MoE layer.

    A token with several experts is split evenly over its pairs (expert here, expert there), so every
    token counts once. Tokens without an expert in one of the two layers are left out.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Share [1] of the tokens of `expert` in `layer` that go to `next_expert` in the next one; rows
        sum to 1. NaN for an expert without tokens, or that the layer does not have. `next_layer`
        names the other layer; the last one has no row. The coordinate `tokens` counts each row.

    Raises:
        LookupError: no routing of this phase, or a single layer.
        ValueError: several phases and none asked for.

    Source: arXiv 2401.08383, inter-layer affinity. The paper has one expert per token.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    flow = _flows(found)
    tokens = flow.sum(-1, keepdims=True)
    values = np.where(tokens > 0, flow / np.where(tokens > 0, tokens, 1.0), np.nan)
    name = "share of an expert's tokens that go to an expert of the next layer"
    result = _of_neighbours(found, values, "layer_transition", name)
    return result.assign_coords(
        tokens=measured(("layer", "expert"), tokens[..., 0], "tokens of the expert, split evenly", "token")
    )


def layer_affinity(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """How many tokens go from an expert to one of the next layer, over how many would if independent.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Ratio [1] over `layer`, `expert`, `next_expert`: 1 if independent. NaN where either expert has
        no tokens. `expected` holds the number of tokens expected; with few, the ratio is noisy by
        about one over its square root.

    Raises:
        LookupError: no routing of this phase, or a single layer.
        ValueError: several phases and none asked for.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    flow = _flows(found)
    total = np.maximum(flow.sum((-2, -1), keepdims=True), 1.0)
    expected = flow.sum(-1, keepdims=True) * flow.sum(-2, keepdims=True) / total
    values = np.where(expected > _CLOSE, flow / np.where(expected > _CLOSE, expected, 1.0), np.nan)
    name = "tokens from an expert to one of the next layer, over what is expected"
    result = _of_neighbours(found, values, "layer_affinity", name)
    dims = ("layer", "expert", "next_expert")
    return result.assign_coords(expected=measured(dims, expected, "tokens expected if independent", "token"))


def _together(found: Choices) -> Float[np.ndarray, "L Z Z"]:
    """Tokens of each pair of experts."""
    tables = [_pairs(layer, layer, found.width, None) for layer in found.distinct]
    return np.stack(tables)


def _flows(found: Choices) -> Float[np.ndarray, "pairs Z Z"]:
    """Tokens from each expert to each of the next layer; a token counts 1 in all."""
    if len(found.layer) < 2:
        raise LookupError(f"two MoE layers are needed to go from one to the next, got {len(found.layer)}")
    chosen = (found.expert >= 0).sum(-1)
    tables = []
    for here in range(len(found.layer) - 1):
        both = chosen[here] * chosen[here + 1]
        each = 1.0 / np.maximum(both, 1)
        tables.append(_pairs(found.expert[here], found.expert[here + 1], found.width, each))
    return np.stack(tables)


def _pairs(
    first: Int[np.ndarray, "T K"], second: Int[np.ndarray, "T J"], width: int, each: Float[np.ndarray, "T"] | None
) -> Float[np.ndarray, "Z Z"]:
    """Sum over tokens and pairs of slots; `each` is what a pair of the token counts."""
    code = first[:, :, None] * width + second[:, None, :]
    filled = (first >= 0)[:, :, None] & (second >= 0)[:, None, :]
    weight = None if each is None else np.broadcast_to(each[:, None, None], code.shape)[filled]
    counted = np.bincount(code[filled], weights=weight, minlength=width * width)
    return counted.reshape(width, width).astype(np.float64)


def _quasi_independent(margin: Float[np.ndarray, "L Z"]) -> Float[np.ndarray, "L Z Z"]:
    """The symmetric tables `r[a] r[b]` with an empty diagonal and these row sums."""
    rate = np.sqrt(margin)
    for _ in range(_ROUNDS):
        others = rate.sum(-1, keepdims=True) - rate
        # the geometric mean of the old and the new rate: the plain step swings between two answers.
        fresh = np.sqrt(rate * margin / np.where(others > 0, others, 1.0))
        is_done = np.abs(fresh - rate).max(initial=0.0) <= _CLOSE * max(rate.max(initial=0.0), 1.0)
        rate = fresh
        if is_done:
            break
    table = rate[:, :, None] * rate[:, None, :]
    diagonal = np.arange(margin.shape[1])
    table[:, diagonal, diagonal] = 0.0
    return np.asarray(table)


def _of_pairs(found: Choices, values: np.ndarray, name: str, long_name: str) -> xr.DataArray:
    exists = found.exists[:, :, None] & found.exists[:, None, :]
    dims = ("layer", "expert", "other")
    return labelled(
        np.where(exists, values, np.nan),
        dims,
        name=name,
        long_name=long_name,
        units="1",
        over=found.over,
        coords=found.coords(*dims),
    )


def _of_neighbours(found: Choices, values: np.ndarray, name: str, long_name: str) -> xr.DataArray:
    exists = found.exists[:-1, :, None] & found.exists[1:, None, :]
    dims = ("layer", "expert", "next_expert")
    result = labelled(
        np.where(exists, values, np.nan),
        dims,
        name=name,
        long_name=long_name,
        units="1",
        over=found.over,
        coords=found.at_layers(slice(-1)).coords("layer") | found.coords(*dims[1:]),
    )
    return result.assign_coords(next_layer=("layer", found.layer[1:]))
