"""The host as a second place where experts compute, while others are on their way to the device."""

from collections.abc import Iterable, Sequence
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.sparse import SparseRouting
from workbench.offload.compute.host_compute import HostRule, rows_on_host
from workbench.offload.loop import Happening, OffloadLoop
from workbench.offload.tiers.host_tier import HostTier

__all__ = ["HostPart", "HostSide", "HostWay"]


@runtime_checkable
class HostWay(Protocol):
    """What moves experts between three tiers, live or on a simulated clock.

    Attributes:
        host: who lies there.
    """

    host: HostTier

    def now(self) -> float:
        """The time on its clock [s]."""

    def hold(self, pages: Iterable[int]) -> dict[int, int]:
        """The host's slots of experts, which stay there until `let_go`; those that cannot be held are left out."""

    def let_go(self, pages: Iterable[int]) -> None:
        """Experts that were held may leave the host."""


@final
class HostSide:
    """Who computes in the host: experts that lie there, and whose rows are cheaper to move than they are.

    They do not come to the device, and neither its policy nor a prefetcher hears of them. A replay decides with
    the same object, and has no tensors.

    Args:
        rule: what is cheaper.
        link: knows who lies in the host.
        loop: whose ledger counts.
        tensors: slots of the host, as the mathematics takes them.
    """

    def __init__(self, rule: HostRule, link: HostWay, loop: OffloadLoop, tensors: tuple[Tensor, ...] = ()):
        self.rule, self.link, self.loop, self.tensors = rule, link, loop, tensors

    def hold(self, pages: Sequence[int], counts: Sequence[int]) -> dict[int, int]:
        """Slots of those pages that should compute here, in their order; they stay until the link lets them go."""
        above, is_cheaper = self.loop.cache.slot_of, self.rule.is_cheaper
        return self.link.hold(
            page for page, rows in zip(pages, counts, strict=True) if page not in above and is_cheaper(rows)
        )

    def computed(self, page: int, token: int, *, row_bytes: int) -> None:
        """An expert has computed.

        Args:
            token: the first that asked for it.
            row_bytes: of its rows, there and back [B].
        """
        self.link.host.policy.touch(page)
        self.loop.ledger.host_computed += 1
        self.loop.ledger.row_bytes += row_bytes
        if self.loop.note is not None:
            self.loop.note(Happening(self.link.now(), token, page, "host_compute", row_bytes, 0.0))


@final
class HostPart:
    """Those experts of one layer's set that compute in the host, each all its rows in one call.

    Args:
        side: the host.
        pages: of the set.
        counts: rows of each.
        tokens: the first that asks for each.

    Attributes:
        places: which of the set they are, ascending.
        slots: of the host.
        rows: after their experts, in the order of slots; None until they have computed, or if there are none.
    """

    def __init__(self, side: HostSide, pages: Sequence[int], counts: Sequence[int], tokens: Sequence[int]):
        self.side, self._pages, self._counts, self._tokens = side, pages, counts, tokens
        held = side.hold(pages, counts)
        self.places = [place for place, page in enumerate(pages) if page in held]
        self.slots = list(held.values())
        self.rows: Float[Tensor, "N D"] | None = None

    def compute(
        self,
        body: Experts,
        experts: Sequence[int],
        x: Float[Tensor, "T D"],
        plan: SparseRouting,
        context: RouteContext,
    ) -> None:
        """Compute, if there is something to compute and it is not done.

        Args:
            body: the mathematics.
            experts: numbers of the whole set in the plan.
        """
        if not self.places or self.rows is not None:
            return
        chosen, slots = (
            torch.tensor(numbers, device=plan.expert.device)
            for numbers in ([experts[place] for place in self.places], self.slots)
        )
        tensors = self.side.tensors
        mine = plan.renumber(chosen, slots, num_experts=len(tensors[0]))
        self.rows = rows_on_host(body, tensors, x, mine, context)
        # of one row; none moves where both are the same memory.
        moved = 0 if x.device.type == "cpu" else x.shape[1] * (x.itemsize + self.rows.itemsize)
        for place in self.places:
            self.side.computed(self._pages[place], self._tokens[place], row_bytes=moved * self._counts[place])

    def end(self) -> None:
        """They may leave the host."""
        self.side.link.let_go([self._pages[place] for place in self.places])
