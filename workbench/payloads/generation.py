"""A text while the model writes it, with the experts of its tokens, for the view `generation`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from workbench.payloads.container import encode
from workbench.payloads.passages import passages_of
from workbench.payloads.reading import group, origin
from workbench.payloads.routed import choices_at, coded, expert_count, places_of, site_of_token
from workbench.trace.schema import Trace

__all__ = ["GenerationStatus", "Written", "generation_payload"]

GenerationStatus = Literal["waiting", "writing", "finished", "stopped", "failed"]

_SOURCE = "Measured: the routing of the tokens that this model read and wrote."


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """The tokens of a text so far, for a host that has them at hand and needs no trace.

    Attributes:
        pieces: the tokens as text.
        is_prompt: True for a token that was given, False for one that was written.
        expert: chosen expert, the largest weight first, -1 if empty.
        weight: factor of its output.
        num_experts: of a layer.
        token_id: vocabulary index.
        kept: False where an assignment was lost to capacity.
    """

    pieces: Sequence[str]
    is_prompt: Bool[np.ndarray, "T"]
    expert: Int[np.ndarray, "T L K"]
    weight: Float[np.ndarray, "T L K"]
    num_experts: int
    token_id: Int[np.ndarray, "T"] | None = None
    kept: Bool[np.ndarray, "T L K"] | None = None


def generation_payload(
    source: Trace | Written | None,
    *,
    prompt: str = "",
    text: str = "",
    status: GenerationStatus = "waiting",
    settings: Mapping[str, Any] | None = None,
    reason: str = "",
    max_tokens: int = 2048,
) -> bytes:
    """The prompt and what was written so far, token by token with its experts in every layer.

    Args:
        source: the newest prompt of a trace and what follows it, or the tokens themselves; None before the first.
        prompt: what the model was given.
        text: what it has written so far.
        status: `writing` while it does; `stopped` when somebody ended it; `failed` with a `reason`.
        settings: how the text is drawn: `max_new_tokens`, `temperature`, `top_p`, `seed`.
        reason: why it ended, in words, where that is not plain.
        max_tokens: that are sent; past it the newest, and the view says so.
    """
    facts = {"prompt": prompt, "text": text, "status": status, "settings": dict(settings or {}), "reason": reason}
    if source is None:
        return encode("generation", {**_NONE, **facts}, _no_tokens())
    header, arrays = _of_written(source) if isinstance(source, Written) else _of_trace(source)
    count = len(arrays["phase"])
    if count > max_tokens:
        header.setdefault("statements", []).append(f"Showing the newest {max_tokens:,} of {count:,} tokens.")
        arrays = {name: values[-max_tokens:] for name, values in arrays.items()}
        header["pieces"] = header["pieces"][-max_tokens:]
    return encode("generation", {**header, **facts}, arrays)


_NONE: Mapping[str, Any] = {
    "source": _SOURCE,
    "pieces": [],
    "places": [],
    "experts": 1,
    "phases": ["decode", "prefill"],
    "domains": [],
}


def _no_tokens() -> dict[str, NDArray[Any]]:
    none = np.zeros(0, np.int32)
    table = np.zeros((0, 0, 1))
    return {
        "expert": table.astype(np.int16),
        "weight": table.astype(np.float32),
        "kept": table.astype(np.uint8),
        **dict.fromkeys(("token_id", "position", "sequence", "index"), none),
        "phase": none.astype(np.int16),
        "domain": none.astype(np.int16),
    }


def _of_written(written: Written) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    count, layers, _ = written.expert.shape
    kept = written.expert >= 0 if written.kept is None else written.kept
    order = np.arange(count, dtype=np.int32)
    header = {
        **_NONE,
        "pieces": [str(piece) for piece in written.pieces],
        "places": [{"name": f"layer {layer}", "layer": layer} for layer in range(layers)],
        "experts": written.num_experts,
    }
    arrays = {
        "expert": written.expert.astype(np.int16),
        "weight": written.weight.astype(np.float32),
        "kept": kept.astype(np.uint8),
        "token_id": (order * 0 - 1 if written.token_id is None else written.token_id).astype(np.int32),
        "position": order,
        "index": order,
        "sequence": order * 0,
        "phase": written.is_prompt.astype(np.int16),
        "domain": (order * 0 - 1).astype(np.int16),
    }
    return header, arrays


def _of_trace(trace: Trace) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The last prompt with what was written after it."""
    dataset = group(trace, "routing")
    if dataset is None or 0 in (dataset.sizes.get(dim, 0) for dim in ("token", "site", "slot")):
        return dict(_NONE), _no_tokens()
    passages, _ = passages_of(dataset, max_tokens=10**9, max_passage=10**9)
    written = [passage.tokens for passage in passages if passage.kind == "generate"]
    if not written:
        return dict(_NONE), _no_tokens()
    tokens, places = written[-1], places_of(dataset)
    phase, phases = coded(dataset["phase"].values[tokens])
    domain, domains = coded(dataset["domain"].values[tokens])
    arrays = choices_at(dataset, tokens, site_of_token(dataset, places, tokens))
    arrays |= {name: dataset[name].values[tokens].astype(np.int32) for name in ("token_id", "position", "sequence")}
    arrays |= {"index": tokens.astype(np.int32), "phase": phase, "domain": domain}
    header = {
        **origin(trace, "routing", source=_SOURCE),
        "pieces": [str(piece) for piece in dataset["piece"].values[tokens]],
        "places": [{"name": name, "layer": layer} for (layer, *_), (name, _) in places.items()],
        "experts": expert_count(dataset),
        "phases": phases,
        "domains": domains,
    }
    return header, arrays
