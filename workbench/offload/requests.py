"""Who asks for which expert, in the order in which a model runs: what caches are fed with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Requests"]

_SETS_AT_A_TIME = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Requests:
    """The sets of experts that the layers of a model asked for, pass after pass.

    A set is what one layer asks for in one forward pass: the union over the tokens of the pass. Sets lie one
    after the other; set `i` is `page[start[i]:start[i + 1]]`, in ascending order.

    Args:
        num_layers: MoE layers L.
        num_experts: experts of a layer E; page = layer * E + expert.
        top_k: experts that one token asks for in a layer, at most.
        page: of every request.
        count: tokens behind every request.
        start: first request of every set, and the end of the last.
        layer: of every set.
        token: index of the first token of the pass that a set belongs to.
        tokens: tokens of the pass.
        is_prefill: the pass read a prompt.
        is_first: the pass begins a new text.
        asker: place in the pass of the first token behind every request; None where nobody needs it.
        token_id: vocabulary index of every token of all passes; None where it was not recorded.
        ahead: pages that the next layer's router would have chosen, for every set; None where it was not recorded.
    """

    num_layers: int
    num_experts: int
    top_k: int
    page: NDArray[np.int32]
    count: NDArray[np.int32]
    start: NDArray[np.int64]
    layer: NDArray[np.int16]
    token: NDArray[np.int64]
    tokens: NDArray[np.int32]
    is_prefill: NDArray[np.bool_]
    is_first: NDArray[np.bool_]
    asker: NDArray[np.int32] | None = None
    token_id: NDArray[np.int32] | None = None
    ahead: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.page)

    @property
    def num_sets(self) -> int:
        """How many sets there are."""
        return len(self.layer)

    @property
    def num_pages(self) -> int:
        """Experts of the model."""
        return self.num_layers * self.num_experts

    @property
    def num_tokens(self) -> int:
        """Tokens of all passes."""
        is_last = np.ones(self.num_sets, np.bool_)
        is_last[:-1] = self.token[1:] != self.token[:-1]
        return int(self.tokens[is_last].sum())

    @property
    def about(self) -> str:
        """How many they are and of what, in words."""
        return (
            f"{len(self)} requests of {self.num_tokens} tokens, {self.num_layers} layers of {self.num_experts} "
            f"experts, {self.top_k} per token"
        )

    def sets(self) -> Iterator[list[int]]:
        """The pages of every set, as plain integers."""
        for pages, _ in self.demands():
            yield pages

    def demands(self) -> Iterator[tuple[list[int], list[int]]]:
        """The pages of every set and the tokens behind each, as plain integers."""
        # some at a time: a list of everything would take many times the memory of the array.
        for first in range(0, self.num_sets, _SETS_AT_A_TIME):
            bounds = self.start[first : first + _SETS_AT_A_TIME + 1]
            pages, counts = (one[bounds[0] : bounds[-1]].tolist() for one in (self.page, self.count))
            for low, high in pairwise((bounds - bounds[0]).tolist()):
                yield pages[low:high], counts[low:high]

    def without_empty_sets(self) -> "Requests":
        """The sets that ask for something: those that an engine serves."""
        is_asked = np.diff(self.start) > 0
        if is_asked.all():
            return self
        of_sets = ("layer", "token", "tokens", "is_prefill", "is_first")
        places = np.flatnonzero(is_asked).tolist()
        return replace(
            self,
            start=np.append(self.start[:-1][is_asked], self.start[-1]),
            ahead=None if self.ahead is None else [self.ahead[place] for place in places],
            **{name: vars(self)[name][is_asked] for name in of_sets},
        )

    @classmethod
    def of_sets(cls, sets: list[list[int]], *, num_layers: int = 1, num_experts: int | None = None) -> "Requests":
        """Requests written by hand: one token after the other, through the layers in turn.

        Args:
            sets: pages that each layer asks for, in the order of time.
            num_experts: of a layer; by default as many as needed.
        """
        pages = [page for one in sets for page in sorted(one)]
        experts = num_experts or max(pages, default=0) + 1
        numbers = np.arange(len(sets))
        return cls(
            num_layers=num_layers,
            num_experts=experts,
            top_k=max((len(one) for one in sets), default=1),
            page=np.array(pages, np.int32),
            count=np.ones(len(pages), np.int32),
            start=np.cumsum([0, *[len(one) for one in sets]], dtype=np.int64),
            layer=(numbers % num_layers).astype(np.int16),
            token=numbers // num_layers,
            tokens=np.ones(len(sets), np.int32),
            is_prefill=np.zeros(len(sets), np.bool_),
            is_first=numbers == 0,
        )
