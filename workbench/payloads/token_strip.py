"""The `/routing` group for the view `token_strip`."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.payloads.container import encode
from workbench.payloads.passages import Passage, passages_of
from workbench.payloads.reading import group, origin
from workbench.payloads.routed import choices_at, coded, expert_count, places_of, site_of_token
from workbench.trace.schema import Trace

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
    places = places_of(dataset)
    max_tokens = max(2, max_choices // (len(places) * dataset.sizes["slot"]))
    passages, statements = passages_of(dataset, max_tokens=max_tokens, max_passage=max_passage)
    tokens = np.concatenate([passage.tokens for passage in passages])
    site = site_of_token(dataset, places, tokens)
    phase, phases = coded(dataset["phase"].values[tokens])
    domain, domains = coded(dataset["domain"].values[tokens])
    arrays = choices_at(dataset, tokens, site)
    arrays |= {name: dataset[name].values[tokens].astype(np.int32) for name in ("token_id", "position", "sequence")}
    arrays |= {"index": tokens.astype(np.int32), "phase": phase, "domain": domain}
    source = origin(trace, "routing")
    source["statements"] += statements
    header = {
        **source,
        "passages": _described(dataset, passages, site),
        "pieces": [str(piece) for piece in dataset["piece"].values[tokens]],
        "places": [{"name": name, "layer": layer} for (layer, *_), (name, _) in places.items()],
        "experts": expert_count(dataset),
        "domains": domains,
        "phases": phases,
    }
    return encode("token_strip", header, arrays)


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
