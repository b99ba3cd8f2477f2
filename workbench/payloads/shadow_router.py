"""A shadow router beside the acting one, on the same tokens, for the view `shadow_router`."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis import only, shadow_agreement, shadow_confusion
from workbench.core.context import Phase
from workbench.payloads.container import encode
from workbench.payloads.reading import group, origin
from workbench.payloads.routed import choices_at, expert_count, places_of, site_of_token
from workbench.trace.schema import PHASES, Trace

__all__ = ["shadow_router_payload"]

_NOTHING = "No shadow router watches this run. Set one, and this view shows where it would send the same tokens."
_SOURCE = "Measured: both routers saw the same hidden states of the same tokens; only the active one was obeyed."
_MEANING = "Agreement is the share of assignments that both make, against the larger of the two sets."
_WORDS = {"train": "training batches", "eval": "held-out text", "prefill": "prompts", "decode": "generated text"}


def shadow_router_payload(trace: Trace, *, max_tokens: int = 512) -> bytes:
    """What a router that only watches would have chosen, beside what the acting one chose.

    The newest reading of the probe text where the shadow saw one, else the newest tokens that it saw.

    Args:
        trace: with shadow sites in its `routing` group; without, the view says how to get one.
        max_tokens: of the text that is shown token by token; past it, the newest ones, and the view says so.
    """
    dataset = group(trace, "routing")
    rows = np.zeros(0, np.int64) if dataset is None else _seen_by_both(dataset)
    if dataset is None or rows.size == 0:
        return encode("shadow_router", {"empty": _NOTHING}, {})
    phase, is_probe, name = _kind(dataset, rows)
    cut = _since(trace, dataset, rows, phase=phase, is_probe=is_probe)
    agreement = shadow_agreement(cut, phase=phase, is_probe=is_probe)
    last = int(agreement["step"].values[-1])
    newest = only(cut, steps=range(last, last + 1)) if is_probe else cut
    confusion = shadow_confusion(newest, phase=phase, is_probe=is_probe)
    tokens = _newest_tokens(dataset, rows, phase, is_probe)
    source = origin(trace, "routing", source=_SOURCE)
    source["statements"] += [_MEANING]
    if len(tokens) > max_tokens:
        source["statements"].append(f"Of {len(tokens):,} tokens the newest {max_tokens:,} are shown one by one.")
    sides, header = _sides(dataset, tokens[-max_tokens:], confusion["layer"].values)
    arrays = {
        **sides,
        "agreement": agreement.transpose("step", "layer").values.astype(np.float32),
        "step": agreement["step"].values.astype(np.int32),
        "confusion": confusion["tokens"].values.astype(np.float32),
        "load": confusion["load"].transpose("layer", "router", "expert").values.astype(np.float32),
    }
    header |= {"tokens_of": name, "is_probe": is_probe}
    return encode("shadow_router", {**source, **header}, arrays)


def _seen_by_both(dataset: xr.Dataset) -> NDArray[np.int64]:
    """Tokens that an acting and a shadow router decided on, in the first pass of some layer."""
    shadow, routed = dataset["is_shadow"].values, dataset["is_routed"].values
    return np.flatnonzero(routed[shadow].any(0) & routed[~shadow].any(0))


def _kind(dataset: xr.Dataset, rows: NDArray[np.int64]) -> tuple[Phase, bool, str]:
    phase, probe = dataset["phase"].values[rows], dataset["is_probe"].values[rows]
    if probe.any():
        return str(phase[probe][-1]), True, "the probe text"  # type: ignore[return-value]
    word = next(word for word in PHASES if (phase == word).any())
    return word, False, _WORDS[word]  # type: ignore[return-value]


def _since(trace: Trace, dataset: xr.Dataset, rows: NDArray[np.int64], *, phase: Phase, is_probe: bool) -> Trace:
    """The part of a trace in which the shadow of the newest token watched, first passes only."""
    among = rows[(dataset["phase"].values[rows] == phase) & (dataset["is_probe"].values[rows] == is_probe)]
    routed = dataset["is_routed"].values[dataset["is_shadow"].values][:, among]
    step = dataset["step"].values[among]
    newest = routed[routed[:, -1]].any(0)
    cut = only(trace, phase=phase, steps=range(int(step[newest].min()), int(step.max()) + 1))
    return only(cut, iteration=0) if (dataset["iteration"].values > 0).any() else cut


def _newest_tokens(dataset: xr.Dataset, rows: NDArray[np.int64], phase: Phase, is_probe: bool) -> NDArray[np.int64]:
    """Tokens of the last recorded step or, for a text that was written token by token, of all its steps."""
    among = rows[(dataset["phase"].values[rows] == phase) & (dataset["is_probe"].values[rows] == is_probe)]
    step = dataset["step"].values[among]
    return among if phase == "decode" else among[step == step[-1]]


def _sides(
    dataset: xr.Dataset, tokens: NDArray[np.int64], layers: NDArray[np.int64]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Choices of both routers as side, token, layer, slot; and what the view says of them."""
    places = places_of(dataset)
    width = dataset.sizes["slot"]
    expert = np.full((2, len(tokens), len(layers), width), -1, np.int16)
    weight, kept = np.zeros(expert.shape, np.float32), np.zeros(expert.shape, np.uint8)
    routers = []
    for side, is_shadow in enumerate((False, True)):
        own = {key: place for key, place in places.items() if key[1] == 0 and key[2] is is_shadow and key[0] in layers}
        site = site_of_token(dataset, own, tokens)
        found = choices_at(dataset, tokens, site)
        used = found["expert"].shape[-1]
        columns = [layers.tolist().index(layer) for layer, *_ in own]
        expert[side][:, columns, :used], weight[side][:, columns, :used] = found["expert"], found["weight"]
        kept[side][:, columns, :used] = found["kept"]
        routers.append(str(dataset["router"].values[site[site >= 0][-1]]))
    used = max(1, int((expert >= 0).any((0, 1, 2)).sum()))
    arrays = {"expert": expert[..., :used], "weight": weight[..., :used], "kept": kept[..., :used]}
    header = {
        "pieces": [str(piece) for piece in dataset["piece"].values[tokens]],
        "layers": layers.tolist(),
        "experts": expert_count(dataset),
        "routers": routers,
        "at": int(dataset["step"].values[tokens[-1]]),
    }
    return arrays, header
