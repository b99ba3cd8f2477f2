"""The experts that tokens ask for, as sequences in the order of time: what caches and windows look at."""

import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64

from workbench.analysis._choices import Choices, choices
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["Streams", "expert_streams"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Streams:
    """What every layer asked for, token after token, sequence after sequence.

    Args:
        expert: experts of each token in the order of its slots, each once, -1 where a slot asks for none.
        bounds: first token of every sequence, and the end of the last.
        layer: index among the MoE layers.
        num_experts: of each layer.
        phase: what the model was doing.
        over: what it is taken from, in words.
    """

    expert: Int32[np.ndarray, "L T K"]
    bounds: Int64[np.ndarray, "sequences_and_end"]
    layer: Int[np.ndarray, "L"]
    num_experts: Int[np.ndarray, "L"]
    phase: Phase
    over: str

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.expert.shape[1])

    @property
    def num_sequences(self) -> int:
        """How many sequences there are."""
        return len(self.bounds) - 1

    @property
    def width(self) -> int:
        """Experts of the widest layer; page = place of the layer * width + expert."""
        return int(self.num_experts.max(initial=0))

    @property
    def top_k(self) -> int:
        """Experts that a token asks for in a layer, at most."""
        return int((self.expert >= 0).sum(-1).max(initial=0))

    def sets(self, place: int | None = None) -> tuple[Int32[np.ndarray, "A"], Int64[np.ndarray, "sets_and_end"]]:
        """The requests one after the other, and where the set of each token begins.

        Args:
            place: of one layer, whose pages are its experts; None for all layers of a token as one set of pages.
        """
        if place is not None:
            return _flat(self.expert[place])
        layers, tokens, slots = self.expert.shape
        page = np.where(
            self.expert >= 0, self.expert + np.arange(layers, dtype=np.int32)[:, None, None] * self.width, -1
        )
        return _flat(page.swapaxes(0, 1).reshape(tokens, layers * slots))


def expert_streams(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> Streams:
    """What the acting routers asked for, without assignments that were lost to capacity.

    Experts that a router brings itself have no weights to keep; they are left out where the trace says how many
    experts the model has.

    In training and evaluation a sequence is one row of one batch; in prefill and decode it is one generation.
    Tokens that the sampling of the trace left out are not there, and their neighbours stand side by side.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Raises:
        LookupError: no routing of this phase.
        ValueError: several phases and none asked for.
    """
    found = choices(trace, phase=phase, is_probe=is_probe)
    keys = [found.token("sequence")]
    if found.phase in ("train", "eval"):
        keys.append(found.token("step"))
    # lexsort is stable: tokens of a sequence stay in the order in which they were recorded.
    order = np.lexsort(keys)
    rises = np.zeros(len(order), np.bool_)
    for key in keys:
        rises[1:] |= key[order][1:] != key[order][:-1]
    bounds = np.array([0, *np.flatnonzero(rises), len(order)][: None if len(order) else 1], np.int64)
    most = _experts_of_the_model(trace)
    expert = _computed(found)[:, order]
    return Streams(
        expert=expert if most is None else np.where(expert < most, expert, np.int32(-1)),
        bounds=bounds,
        layer=found.layer,
        num_experts=found.num_experts if most is None else np.minimum(found.num_experts, most),
        phase=found.phase,
        over=f"{found.over}; {len(bounds) - 1} sequences",
    )


def _computed(found: Choices) -> Int32[np.ndarray, "L T K"]:
    """Experts that a token was computed by: not those that had no room, and none twice."""
    kept = found.routing["kept"].values[found.site, found.row]
    expert = np.where(kept, found.expert, -1).astype(np.int32)
    for slot in range(1, expert.shape[-1]):
        is_again = (expert[..., :slot] == expert[..., slot : slot + 1]).any(-1)
        expert[..., slot][is_again] = -1
    return expert


def _experts_of_the_model(trace: Trace) -> int | None:
    """Experts with weights, of a layer; None where the trace does not say it."""
    try:
        return int(json.loads(trace.attrs["model"])["num_experts"])
    except (KeyError, ValueError, TypeError):
        return None


def _flat(page: Int32[np.ndarray, "T slots"]) -> tuple[Int32[np.ndarray, "A"], Int64[np.ndarray, "sets_and_end"]]:
    asked = page >= 0
    start = np.zeros(len(page) + 1, np.int64)
    np.cumsum(asked.sum(-1), out=start[1:])
    return page[asked], start
