"""The decisions of a trace about some tokens, place by place: what every view of tokens reads."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Places", "choices_at", "coded", "expert_count", "places_of", "site_of_token"]

Places = dict[tuple[int, int, bool], tuple[str, NDArray[np.int64]]]
"""(layer, pass, is a shadow) -> its name and its sites: a router swap opens a new site in the same place."""


def places_of(dataset: xr.Dataset) -> Places:
    """Where decisions are taken: acting routers by layer, then shadow routers."""
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


def site_of_token(dataset: xr.Dataset, places: Places, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The site that routed each token at each place, -1 for none; token-major."""
    routed = dataset["is_routed"].transpose("site", "token").values[:, tokens]
    site = np.full((len(tokens), len(places)), -1)
    for column, (_, members) in enumerate(places.values()):
        by_member = routed[members]
        site[:, column] = np.where(by_member.any(0), members[by_member.argmax(0)], -1)
    return site


def choices_at(dataset: xr.Dataset, tokens: NDArray[np.int64], site: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """`expert`, `weight` and `kept` of each token, place and choice; choices by weight, empty slots last."""
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


def coded(values: NDArray[Any]) -> tuple[NDArray[np.int16], list[str]]:
    """Words as numbers into a list; -1 for the empty word."""
    words = [str(value) for value in values]
    known = sorted(set(words) - {""})
    place = {word: i for i, word in enumerate(known)} | {"": -1}
    return np.array([place[word] for word in words], np.int16), known


def expert_count(dataset: xr.Dataset) -> int:
    """Experts of the widest layer, extras included."""
    declared = int(dataset["num_experts"].values.max()) if "num_experts" in dataset.coords else 0
    return max(declared, int(dataset["expert"].max()) + 1, 1)
