"""What all payloads need from a trace: its groups, its control events in words, and thinning that says so."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.trace.schema import Trace

__all__ = [
    "control_events",
    "events_of",
    "group",
    "offload_terms",
    "origin",
    "thin",
    "unit_words",
    "words_of_unit",
]

_UNIT_WORDS = {
    "nat/token": "nats per token",
    "bit/byte": "bits per byte",
}


def group(trace: Trace, name: str) -> xr.Dataset | None:
    """A group of a trace, or None when it was not recorded or holds nothing."""
    if name not in trace.children:
        return None
    dataset = trace[name].to_dataset()
    return dataset if dataset.data_vars else None


def unit_words(array: xr.DataArray) -> str:
    """The unit of a measured variable, spelled out where it has a common name."""
    return words_of_unit(str(array.attrs.get("units", "no unit recorded")))


def words_of_unit(unit: str) -> str:
    """A unit, spelled out where it has a common name."""
    return _UNIT_WORDS.get(unit, unit)


def origin(trace: Trace, name: str, *, source: str = "") -> dict[str, Any]:
    """What a view must say about where its numbers come from.

    Args:
        name: group that the numbers are read from.
        source: what was measured, in a sentence: the answer where a reader asks a number for its source.

    Returns:
        `source`, `statements` with the sampling, and a `badge` on anything that was not measured.
    """
    text = trace[name].attrs.get("sampling", "") if name in trace.children else ""
    statements = [f"Recorded: {text}."] if text else []
    if not trace.attrs.get("synthetic", False):
        return {"statements": statements, **({"source": source} if source else {})}
    made_up = "This trace was drawn at random for labs and tests; no model was measured."
    return {"statements": [made_up, *statements], "badge": "synthetic"}


def offload_terms(trace: Trace) -> dict[str, Any]:
    """Under what terms experts were offloaded, as a run notes it in its traces.

    Returns:
        `room`: slots by the name of the tier; `budgets`: the bytes for that, in words; `pages_each`: pages of an
        expert, None where a slot holds a whole one. Nothing that was not noted.
    """
    noted = json.loads(str(trace.attrs.get("offload", "{}")))
    return {name: noted.get(name, empty) for name, empty in (("room", {}), ("budgets", {}), ("pages_each", None))}


def thin(count: int, limit: int) -> NDArray[np.int64]:
    """Indices of at most `limit` of `count` items, evenly spaced; the first and the last are always among them."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, max(2, limit)).round().astype(np.int64))


def control_events(trace: Trace) -> list[dict[str, Any]]:
    """Commands that took effect, by step, in words; one for the same change in several layers."""
    dataset = group(trace, "control")
    return [] if dataset is None else events_of({str(name): array.values for name, array in dataset.data_vars.items()})


def events_of(columns: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """The same from the columns of a block's `control` group; no columns, no events."""
    if not columns:
        return []
    found = (columns[name].tolist() for name in ("applied_step", "op", "args_json", "result"))
    merged: dict[tuple[int, str, str], tuple[list[int], str]] = {}
    for step, op, text, result in zip(*found, strict=True):
        if step < 0:
            continue
        args = _arguments(text)
        layer = args.pop("layer", None)
        layers, _ = merged.setdefault((step, op, json.dumps(args, sort_keys=True)), ([], result))
        if isinstance(layer, int):
            layers.append(layer)
    return [
        {"step": step, **_label(op, json.loads(text), layers), "detail": result}
        for (step, op, text), (layers, result) in sorted(merged.items())
    ]


def _arguments(text: str) -> dict[str, Any]:
    args = json.loads(text) if text else {}
    return args if isinstance(args, dict) else {"value": args}


def _label(op: str, args: dict[str, Any], layers: list[int]) -> dict[str, str]:
    """A command in a few words for a picture, and with its arguments for a list."""
    if op == "swap_router":
        short, rest = f"router changed to {args.get('name', '?')}", args.get("args", {})
    elif op == "annotate":
        short, rest = str(args.get("text", "note")), {}
    else:
        short, rest = op.replace("_", " "), args
    words = f" ({_words(rest)})" if rest else ""
    return {"short": short, "label": f"{short}{words}{_where(layers)}"}


def _words(args: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in args.items())


def _where(layers: list[int]) -> str:
    if not layers:
        return ""
    return f" in layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, sorted(layers)))}"
