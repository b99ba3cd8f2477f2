"""Which experts go together, for the view `expert_flow`: measured by `workbench.analysis`, not here."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import co_activation, layer_affinity, layer_transition, only, pair_affinity
from workbench.core.context import Phase
from workbench.payloads.container import encode
from workbench.payloads.reading import group, origin
from workbench.trace.schema import PHASES, Trace

__all__ = ["expert_flow_payload"]

_WORDS = {"train": "training batches", "eval": "held-out text", "prefill": "prompts", "decode": "generated text"}
_CHANCE = (
    "Chance is what independent choices would give, as busy as each expert is; "
    "with fewer than 5 tokens expected by chance a pair is not judged."
)
_SPLIT = "From layer to layer a token with several experts is split evenly over their pairs."


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Tokens that are counted together."""

    key: str
    name: str
    trace: Trace
    phase: Phase
    is_probe: bool


def expert_flow_payload(trace: Trace, *, max_pairs: int = 300_000) -> bytes:
    """How often experts of a layer serve the same token, and where the tokens of an expert go in the next layer.

    Kinds of tokens stay apart: the newest reading of the probe text, training batches, prompts, generated text; after
    a router swap only tokens of the newest router count.

    Args:
        trace: with a `routing` group; without one the view says that there is nothing to show.
        max_pairs: layer x expert x expert values that are sent, 24 bytes each; past it fewer kinds, then fewer layers,
            and the view says so.
    """
    dataset = group(trace, "routing")
    kinds = [] if dataset is None or 0 in (dataset.sizes["token"], dataset.sizes["site"]) else _kinds(trace, dataset)
    if not kinds:
        return encode("expert_flow", {"empty": "No routed token has been recorded in this trace."}, {})
    first = _measured(kinds[0])
    layers, experts, _ = first[0].shape
    fitting = max(1, max_pairs // (layers * experts * experts))
    shown = min(layers, max(2, max_pairs // (experts * experts)))
    source = origin(trace, "routing", source=_SOURCE)
    source["statements"] += [_CHANCE, _SPLIT, *_left_out(kinds, fitting, layers, shown)]
    arrays: dict[str, NDArray[Any]] = {}
    described = []
    for kind in kinds[:fitting]:
        pairs, tables = first if kind is kinds[0] else _measured(kind)
        for name, table in tables.items():
            arrays[f"{kind.key}.{name}"] = table[: shown - name.startswith("next")].astype(np.float32)
        described.append({"key": kind.key, "name": kind.name, **_facts(kind, pairs, shown)})
    return encode("expert_flow", {**source, "kinds": described}, arrays)


_SOURCE = "Counted from the routing of the trace (/routing) by workbench.analysis."


def _kinds(trace: Trace, dataset: xr.Dataset) -> list[_Kind]:
    phase, step = dataset["phase"].values, dataset["step"].values
    probe = dataset["is_probe"].values if "is_probe" in dataset.coords else np.zeros(len(phase), bool)
    acting = dataset["is_routed"].values[~dataset["is_shadow"].values].any(0)
    found = []
    if (probe & acting).any():
        last = int(step[probe & acting].max())
        word = str(phase[probe & acting & (step == last)][0])
        cut = _first_pass(only(trace, steps=range(last, last + 1)), dataset)
        found.append(_kind("probe", f"probe text at step {last:,}", cut, word, is_probe=True))
    for word in PHASES:
        rows = np.flatnonzero(acting & ~probe & (phase == word))
        if rows.size:
            first, last = _since(dataset, rows), int(step[rows].max())
            cut = _first_pass(only(trace, phase=word, steps=range(first, last + 1)), dataset)
            found.append(_kind(word, _WORDS[word], cut, word))
    return found


def _kind(key: str, name: str, trace: Trace, phase: Any, *, is_probe: bool = False) -> _Kind:
    return _Kind(key=key, name=name, trace=trace, phase=phase, is_probe=is_probe)


def _first_pass(trace: Trace, dataset: xr.Dataset) -> Trace:
    """Passes through the same layer are never mixed: the first one counts."""
    return only(trace, iteration=0) if (dataset["iteration"].values > 0).any() else trace


def _since(dataset: xr.Dataset, rows: NDArray[np.int64]) -> int:
    """The first step at which the newest acting router routed these tokens."""
    acting = np.flatnonzero(~dataset["is_shadow"].values)
    routed = dataset["is_routed"].values[acting][:, rows]
    newest = routed[routed[:, -1]].any(0)
    return int(dataset["step"].values[rows[newest]].min()) if newest.any() else int(dataset["step"].values[rows].min())


def _measured(kind: _Kind) -> tuple[xr.DataArray, dict[str, NDArray[np.float64]]]:
    """Tables by layer, expert and expert; those that begin with `next` lead to the next layer: one layer less."""
    where: Any = {"phase": kind.phase, "is_probe": kind.is_probe}
    pairs = pair_affinity(kind.trace, **where)
    tables = {
        "share": co_activation(kind.trace, **where).values,
        "ratio": pairs.values,
        "expected": pairs["expected"].values,
    }
    if len(pairs["layer"]) < 2:
        nothing = np.zeros((0, *tables["share"].shape[1:]))
        tables |= dict.fromkeys(("next_share", "next_ratio", "next_expected"), nothing)
        return pairs, tables | {"next_tokens": nothing[:, :, 0]}
    going, apart = layer_transition(kind.trace, **where), layer_affinity(kind.trace, **where)
    return pairs, tables | {
        "next_share": going.values,
        "next_ratio": apart.values,
        "next_expected": apart["expected"].values,
        "next_tokens": going["tokens"].values,
    }


def _facts(kind: _Kind, found: xr.DataArray, shown: int) -> dict[str, Any]:
    """Layers with their numbers of experts, tokens and routers of a kind."""
    routing = kind.trace["routing"].to_dataset()
    is_acting = ~routing["is_shadow"].values
    routed = routing["is_routed"].values & (routing["is_probe"].values == kind.is_probe) & is_acting[:, None]
    layers = found["layer"].values[:shown]
    of_layer = [routed[routing["layer"].values == layer] for layer in layers]
    return {
        "layers": layers.tolist(),
        "experts": found["num_experts"].values[:shown].tolist(),
        "tokens": [int(rows.any(0).sum()) for rows in of_layer],
        "routers": list(dict.fromkeys(str(name) for name in routing["router"].values[routed.any(1)])),
    }


def _left_out(kinds: list[_Kind], fitting: int, layers: int, shown: int) -> list[str]:
    said = []
    if fitting < len(kinds):
        names = ", ".join(kind.name for kind in kinds[fitting:])
        said.append(f"Left out, so that this view stays small: {names}.")
    if shown < layers:
        said.append(f"Showing the first {shown} of {layers} layers, so that this view stays small.")
    return said
