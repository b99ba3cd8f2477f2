"""Who a plan asks for: which experts, with how many rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.core.sparse import SparseRouting

__all__ = ["Asked", "asked_of"]


@dataclass(frozen=True)
class Asked:
    """Who a plan asks for: experts with rows, ascending, the rows of each, and the first token that asks."""

    experts: list[int]
    counts: list[int]
    tokens: list[int]

    def without(self, places: Sequence[int]) -> "Asked":
        """All but some."""
        return self if not places else self.part([one for one in range(len(self.experts)) if one not in places])

    def part(self, places: Sequence[int]) -> "Asked":
        """Some of them."""
        chosen = sorted(places)
        return Asked(*([whole[place] for place in chosen] for whole in (self.experts, self.counts, self.tokens)))


def asked_of(plan: SparseRouting) -> Asked:
    """The experts that a plan asks for."""
    if plan.num_tokens == 1 and plan.kept is None:
        experts = sorted(expert for expert in plan.expert[0].tolist() if expert >= 0)
        # a token may choose an expert twice.
        if len(set(experts)) == len(experts):
            return Asked(experts, [1] * len(experts), [0] * len(experts))
    counts = plan.counts
    has_rows = counts.nonzero().flatten()
    starts = (counts.cumsum(0) - counts)[has_rows]
    # rows of an expert are in the order of tokens.
    return Asked(has_rows.tolist(), counts[has_rows].tolist(), plan.rows[starts].tolist())
