"""Tokens of a trace cut into passages: what a person reads together."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.payloads.reading import thin

__all__ = ["Passage", "passages_of"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Tokens that are read together, as indices into the trace's token dimension.

    Attributes:
        kind: `probe`, `train`, `eval` or `generate`; the passages of one kind follow each other in time.
    """

    name: str
    kind: str
    step: int
    tokens: NDArray[np.int64]


def passages_of(dataset: xr.Dataset, *, max_tokens: int, max_passage: int) -> tuple[list[Passage], list[str]]:
    """The passages of a `routing` group that fit, and sentences on what was left out."""
    phase, step = dataset["phase"].values, dataset["step"].values
    sequence, position = dataset["sequence"].values, dataset["position"].values
    probe = dataset["is_probe"].values if "is_probe" in dataset.coords else np.zeros(len(phase), bool)
    starts = np.flatnonzero(_begins(phase, step, sequence, position, probe))
    parts = np.split(np.arange(len(phase)), starts[1:])
    # Batched decoding writes one token of each sequence in turn; a person reads one sequence after the other.
    found = [_passage(part[np.argsort(sequence[part], kind="stable")], phase, step, probe) for part in parts]
    statements = []
    limit = min(max_passage, max_tokens)
    if any(len(passage.tokens) > limit for passage in found):
        statements.append(f"Passages longer than {limit:,} tokens are cut there.")
        found = [replace(passage, tokens=passage.tokens[:limit]) for passage in found]
    longest = max(len(passage.tokens) for passage in found)
    kept = _thinned(found, max(1, max_tokens // longest))
    if len(kept) < len(found):
        statements.append(f"Showing {len(kept):,} of {len(found):,} recorded passages, evenly spaced in time.")
    return kept, statements


def _begins(
    phase: NDArray[Any],
    step: NDArray[Any],
    sequence: NDArray[Any],
    position: NDArray[Any],
    probe: NDArray[Any],
) -> NDArray[np.bool_]:
    """Another step or phase begins one, and so does a text that starts over; decoding continues its prompt."""
    starts_over = (sequence[1:] < sequence[:-1]) | ((sequence[1:] == sequence[:-1]) & (position[1:] <= position[:-1]))
    changed = np.ones(len(phase), bool)
    changed[1:] = (phase[1:] != phase[:-1]) | (step[1:] != step[:-1]) | (probe[1:] != probe[:-1]) | starts_over
    continues = phase == "decode"
    continues[0] = False
    continues[1:] &= (phase[:-1] == "prefill") | (phase[:-1] == "decode")
    return changed & ~continues


def _passage(tokens: NDArray[np.int64], phase: NDArray[Any], step: NDArray[Any], probe: NDArray[Any]) -> Passage:
    word, at = str(phase[tokens[0]]), int(step[tokens[0]])
    if probe[tokens[0]]:
        return Passage(name=f"Probe text at step {at:,}", kind="probe", step=at, tokens=tokens)
    if word in ("train", "eval"):
        name = "Training batch" if word == "train" else "Held-out text"
        return Passage(name=f"{name} at step {at:,}", kind=word, step=at, tokens=tokens)
    has_written = bool((phase[tokens] == "decode").any())
    name = {(True, True): "Prompt and generated text", (True, False): "Prompt"}.get(
        (word == "prefill", has_written), "Generated text"
    )
    return Passage(name=name, kind="generate", step=at, tokens=tokens)


def _thinned(passages: list[Passage], limit: int) -> list[Passage]:
    """About `limit` passages; every kind keeps its share, its first and its last."""
    if len(passages) <= limit:
        return passages
    kept: list[int] = []
    for kind in sorted({passage.kind for passage in passages}):
        members = [i for i, passage in enumerate(passages) if passage.kind == kind]
        kept += [members[i] for i in thin(len(members), max(2, limit * len(members) // len(passages)))]
    return [passages[i] for i in sorted(kept)]
