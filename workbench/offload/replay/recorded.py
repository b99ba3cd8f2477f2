"""From a recorded routing to the requests that an expert cache would get."""

import json
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.offload.requests import Requests
from workbench.trace.schema import Trace

__all__ = ["requests_of"]

_READ, _WRITTEN = "prefill", "decode"


def requests_of(trace: Trace, *, passes: Literal["recorded", "token"] = "recorded") -> Requests:
    """Who asked for which expert, pass by pass.

    What was read and written counts, what was trained or probed does not; nor do shadow routers, experts that a
    router brought itself, and assignments lost to capacity.

    Args:
        trace: with a `routing` group.
        passes: `recorded` forms passes as the model ran: a prompt is one, and so is each token of a batch of
            sequences after it. `token` makes every token a pass, as if the text were written one token at a time.

    Raises:
        LookupError: no routing, or none of a text that was read or written.
    """
    routing = trace.moe.group("routing")
    chosen = np.flatnonzero(np.isin(routing["phase"].values, (_READ, _WRITTEN)) & ~routing["is_probe"].values)
    if not chosen.size:
        raise LookupError(
            "the trace holds no routing of a text that was read or written (phases prefill and decode); record one "
            "with `workbench trace`, or with ask() and record() of a session"
        )
    number, is_first = _passes(routing, chosen, by_token=passes == "token")
    sites = _sites(routing)
    experts = _num_experts(trace, routing)
    pages, counts, starts, layers, asker = _requests(routing, chosen, number, sites, experts)
    first = np.searchsorted(number, np.arange(len(is_first)))
    size = np.diff(np.append(first, len(number)))
    is_prompt = routing["phase"].values[chosen[first]] == _READ
    places = len(sites)
    return Requests(
        num_layers=max(layer for layer, _ in sites) + 1,
        num_experts=experts,
        top_k=_most(routing, chosen, experts),
        page=pages,
        count=counts,
        start=starts,
        layer=np.tile(layers, len(is_first)),
        token=np.repeat(first, places),
        tokens=np.repeat(size, places).astype(np.int32),
        is_prefill=np.repeat(is_prompt, places),
        is_first=np.repeat(is_first, places),
        asker=asker,
        token_id=routing["token_id"].values[chosen].astype(np.int32),
        ahead=_ahead(routing, chosen, number, sites, experts),
    )


def _passes(
    routing: xr.Dataset, chosen: NDArray[np.intp], *, by_token: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The pass of every token, and for every pass whether a text begins with it."""
    sequence, step = routing["sequence"].values[chosen], routing["step"].values[chosen]
    is_prompt = routing["phase"].values[chosen] == _READ
    if by_token:
        is_first = np.ones(len(chosen), np.bool_)
        is_first[1:] = sequence[1:] != sequence[:-1]
        return np.arange(len(chosen)), is_first
    begins = np.ones(len(chosen), np.bool_)
    # prompts of a batch lie one after the other; after a prompt every sequence has one token in each pass.
    begins[1:] = (is_prompt[1:] != is_prompt[:-1]) | (step[1:] != step[:-1])
    seen: set[int] = set()
    for place in np.flatnonzero(~is_prompt).tolist():
        if begins[place] or int(sequence[place]) in seen:
            begins[place] = True
            seen.clear()
        seen.add(int(sequence[place]))
    return begins.cumsum() - 1, is_prompt[begins]


def _sites(routing: xr.Dataset) -> list[tuple[int, int]]:
    """Layer and iteration of every place where a decision was taken, in the order in which a model runs."""
    own = ~routing["is_shadow"].values
    return sorted({*zip(routing["layer"].values[own].tolist(), routing["iteration"].values[own].tolist(), strict=True)})


def _num_experts(trace: Trace, routing: xr.Dataset) -> int:
    """Experts of the model itself; a router's own come after them."""
    try:
        return int(json.loads(trace.attrs["model"])["num_experts"])
    except (KeyError, ValueError, TypeError):
        return int(routing["num_experts"].values.max())


def _requests(
    routing: xr.Dataset,
    chosen: NDArray[np.intp],
    number: NDArray[np.int64],
    sites: list[tuple[int, int]],
    experts: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int16], NDArray[np.int32]]:
    keys, tokens = [], []
    layer, iteration = routing["layer"].values, routing["iteration"].values
    for place, (at, nth) in enumerate(sites):
        for site in np.flatnonzero((layer == at) & (iteration == nth) & ~routing["is_shadow"].values):
            expert = routing["expert"].values[site][chosen]
            is_asked = (expert >= 0) & (expert < experts) & routing["kept"].values[site][chosen]
            token, slot = np.nonzero(is_asked)
            keys.append((number[token] * len(sites) + place) * experts + expert[token, slot])
            tokens.append(token)
    key, first, counts = np.unique(np.concatenate(keys), return_index=True, return_counts=True)
    sets = key // experts
    layers = np.array([at for at, _ in sites], np.int16)
    pages = (layers[sets % len(sites)].astype(np.int64) * experts + key % experts).astype(np.int32)
    starts = np.searchsorted(sets, np.arange((number[-1] + 1) * len(sites) + 1))
    begins = np.searchsorted(number, np.arange(number[-1] + 1))
    asker = (np.concatenate(tokens)[first] - begins[sets // len(sites)]).astype(np.int32)
    return pages, counts.astype(np.int32), starts, layers, asker


def _ahead(
    routing: xr.Dataset,
    chosen: NDArray[np.intp],
    number: NDArray[np.int64],
    sites: list[tuple[int, int]],
    experts: int,
) -> list[list[int]] | None:
    """For every set the pages that its router expected of the next layer, the most wanted first."""
    if "ahead" not in routing:
        return None
    layer, iteration = routing["layer"].values, routing["iteration"].values
    out: list[list[int]] = [[] for _ in range((int(number[-1]) + 1) * len(sites))]
    for place, (at, nth) in enumerate(sites):
        for site in np.flatnonzero((layer == at) & (iteration == nth) & ~routing["is_shadow"].values):
            guess = routing["ahead"].values[site][chosen]
            token, slot = np.nonzero((guess >= 0) & (guess < experts))
            key, count = np.unique(number[token] * experts + guess[token, slot], return_counts=True)
            for wanted in np.lexsort((key, -count)):
                passed, expert = divmod(int(key[wanted]), experts)
                out[passed * len(sites) + place].append((at + 1) * experts + expert)
    return out


def _most(routing: xr.Dataset, chosen: NDArray[np.intp], experts: int) -> int:
    """Experts that one token asks for in a layer, at most."""
    own = np.flatnonzero(~routing["is_shadow"].values)
    most = 1
    for site in own.tolist():
        expert = routing["expert"].values[site][chosen]
        asked = (expert >= 0) & (expert < experts) & routing["kept"].values[site][chosen]
        most = max(most, int(asked.sum(-1).max(initial=1)))
    return most
