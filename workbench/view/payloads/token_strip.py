"""The `/routing` group for the view `token_strip`."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.trace.schema import Trace
from workbench.view.container import encode
from workbench.view.payloads._passages import Passage, passages_of
from workbench.view.payloads._reading import group, origin

__all__ = ["token_strip_payload"]


def token_strip_payload(trace: Trace, *, max_choices: int = 200_000, max_passage: int = 1024) -> bytes:
    """Tokens with their experts in every layer, passage by passage, for the view `token_strip`.

    A passage is one recorded piece of a training batch, one reading of the probe text, or a prompt with what the model
    wrote after it. The choices of a token are ordered by weight, largest first, because slots mean different things to
    different routers.

    Args:
        trace: with a `routing` group; without one the view says that there is nothing to show.
        max_choices: token x layer x slot choices that are sent, 7 bytes each; past it, evenly spaced passages, and the
            view says so.
        max_passage: tokens of one passage; a longer one is cut, and the view says so.
    """
    dataset = group(trace, "routing")
    if dataset is None or 0 in (dataset.sizes.get(dim, 0) for dim in ("token", "site", "slot")):
        return encode("token_strip", {"empty": "No routed token has been recorded in this trace."}, {})
    places = _places(dataset)
    max_tokens = max(2, max_choices // (len(places) * dataset.sizes["slot"]))
    passages, statements = passages_of(dataset, max_tokens=max_tokens, max_passage=max_passage)
    tokens = np.concatenate([passage.tokens for passage in passages])
    site = _site_of_token(dataset, places, tokens)
    phase, phases = _coded(dataset["phase"].values[tokens])
    domain, domains = _coded(dataset["domain"].values[tokens])
    arrays = _choices(dataset, tokens, site)
    arrays |= {name: dataset[name].values[tokens].astype(np.int32) for name in ("token_id", "position", "sequence")}
    arrays |= {"index": tokens.astype(np.int32), "phase": phase, "domain": domain}
    source = origin(trace, "routing")
    source["statements"] += statements
    header = {
        **source,
        "passages": _described(dataset, passages, site),
        "pieces": [str(piece) for piece in dataset["piece"].values[tokens]],
        "places": [{"name": name, "layer": layer} for (layer, *_), (name, _) in places.items()],
        "experts": _expert_count(dataset),
        "domains": domains,
        "phases": phases,
    }
    return encode("token_strip", header, arrays)


_Place = tuple[int, int, bool]


def _places(dataset: xr.Dataset) -> dict[_Place, tuple[str, NDArray[np.int64]]]:
    """Where decisions are taken, each with its name and its sites: a router swap opens a new site in the same place."""
    keys = list(
        zip(
            *(dataset[name].values.tolist() for name in ("layer", "iteration", "is_shadow")),
            strict=True,
        )
    )
    is_repeated = any(iteration > 0 for _, iteration, _ in keys)
    out = {}
    for layer, iteration, is_shadow in sorted(set(keys), key=lambda key: (key[2], key[0], key[1])):
        turn = f", pass {iteration + 1}" if is_repeated else ""
        name = f"layer {layer}{turn}{' (shadow router)' if is_shadow else ''}"
        members = [i for i, key in enumerate(keys) if key == (layer, iteration, is_shadow)]
        out[layer, iteration, is_shadow] = (name, np.array(members))
    return out


def _site_of_token(
    dataset: xr.Dataset, places: dict[_Place, tuple[str, NDArray[np.int64]]], tokens: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The site that routed each token at each place, -1 for none; token-major."""
    routed = dataset["is_routed"].transpose("site", "token").values[:, tokens]
    site = np.full((len(tokens), len(places)), -1)
    for column, (_, members) in enumerate(places.values()):
        by_member = routed[members]
        site[:, column] = np.where(by_member.any(0), members[by_member.argmax(0)], -1)
    return site


def _choices(dataset: xr.Dataset, tokens: NDArray[np.int64], site: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Expert, weight and kept of each token, place and choice; choices by weight, empty slots last."""
    columns = {
        name: dataset[name].transpose("token", "site", "slot").values[tokens[:, None], site].astype(dtype, copy=False)
        for name, dtype in (("expert", np.int16), ("weight", np.float32), ("kept", np.uint8))
    }
    columns["expert"] = np.where(site[..., None] >= 0, columns["expert"], np.int16(-1))
    is_empty = columns["expert"] < 0
    # Stable: choices of equal weight keep the order of the trace.
    rank = np.argsort(np.where(is_empty, np.inf, -columns["weight"]), axis=-1, kind="stable")
    used = max(1, int((~is_empty).sum(-1).max(initial=0)))
    return {name: np.take_along_axis(values, rank, axis=-1)[..., :used] for name, values in columns.items()}


def _described(dataset: xr.Dataset, passages: list[Passage], site: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Passages as the view reads them, with the router at each place."""
    routers = [str(name) for name in dataset["router"].values]
    out, start = [], 0
    for passage in passages:
        stop = start + len(passage.tokens)
        first = [next((int(i) for i in column if i >= 0), -1) for column in site[start:stop].T]
        out.append(
            {"name": passage.name, "kind": passage.kind, "step": passage.step, "start": start, "stop": stop}
            | {"routers": [routers[i] if i >= 0 else "" for i in first]}
        )
        start = stop
    return out


def _coded(values: NDArray[Any]) -> tuple[NDArray[np.int16], list[str]]:
    """Words as numbers into a list; -1 for the empty word."""
    words = [str(value) for value in values]
    known = sorted(set(words) - {""})
    place = {word: i for i, word in enumerate(known)} | {"": -1}
    return np.array([place[word] for word in words], np.int16), known


def _expert_count(dataset: xr.Dataset) -> int:
    declared = int(dataset["num_experts"].values.max()) if "num_experts" in dataset.coords else 0
    return max(declared, int(dataset["expert"].max()) + 1, 1)
