"""Whether an expert that lies in the host is moved to the device, or its rows to the host."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.html import facts
from workbench.core.sparse import SparseRouting
from workbench.core.units import human_bytes
from workbench.offload.tiers.cost import LinkCost
from workbench.offload.tiers.pool import SlotPool
from workbench.offload.tiers.tiered_link import TieredLink

__all__ = ["ComputeCost", "HostRule", "measure_host", "rows_on_host"]

_FREE = LinkCost(bytes_per_second=math.inf, source="nothing is moved")
_FEW, _MANY = 1, 64


@final
@dataclass(frozen=True, kw_only=True)
class ComputeCost:
    """Time of one expert on one processor: it reads the weights and does the arithmetic, whichever takes longer.

    Args:
        bytes_per_second: at which weights are read when there are few rows [B/s].
        flops_per_second: when there are many [1/s].
    """

    bytes_per_second: float
    flops_per_second: float

    def seconds(self, rows: int, *, expert_bytes: int, row_flops: float) -> float:
        """Of one expert for so many rows [s]."""
        return max(expert_bytes / self.bytes_per_second, rows * row_flops / self.flops_per_second)

    def __str__(self) -> str:
        return f"{human_bytes(self.bytes_per_second)}/s, {self.flops_per_second / 1e9:.3g} GFLOP/s"


@final
@dataclass(frozen=True, kw_only=True)
class HostRule:
    """Per expert: compute it in the host if that is cheaper than to move it and compute it on the device.

    In the host: the rows go there and come back, and the host computes. Moved: the expert comes over the link, the
    one that it replaces goes back where the tiers are exclusive, and the device computes. At a tie it is moved.

    Args:
        expert_bytes: of its weights [B].
        row_flops: multiplications and additions of one row [1].
        row_bytes: of a row on its way there and back [B]; 0 where host and device share their memory.
        link: that experts are moved over.
        rows: the link as rows see it, which are much smaller than experts.
        copies: of an expert for each that is moved: 2 if another one goes back.

    Source: arXiv 2402.07033 (Fiddler), section 3.3; its code has fixed costs where these are measured, and this
        rule lets weights that the host must read bound its speed for few rows.
    """

    expert_bytes: int
    row_flops: float
    row_bytes: int = 0
    link: LinkCost
    rows: LinkCost = field(default_factory=lambda: _FREE)
    host: ComputeCost
    device: ComputeCost
    copies: int = 1

    def host_seconds(self, rows: int) -> float:
        """If the rows go to the host [s]."""
        there_and_back = 2 * self.rows.seconds(rows * self.row_bytes / 2)
        return there_and_back + self.host.seconds(rows, expert_bytes=self.expert_bytes, row_flops=self.row_flops)

    def move_seconds(self, rows: int) -> float:
        """If the expert goes to the device [s]."""
        moved = self.copies * self.link.seconds(self.expert_bytes)
        return moved + self.device.seconds(rows, expert_bytes=self.expert_bytes, row_flops=self.row_flops)

    def is_cheaper(self, rows: int) -> bool:
        """Whether the host should compute so many rows of an expert."""
        return self.host_seconds(rows) < self.move_seconds(rows)

    @property
    def most_rows(self) -> float:
        """Most rows of an expert for which the host computes it; infinite if it always does, 0 if it never does."""
        if not self.is_cheaper(1):
            return 0
        low, high = 1, 2
        while self.is_cheaper(high):
            if high > 1 << 30:
                return math.inf
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.is_cheaper(middle) else (low, middle)
        return low

    def __str__(self) -> str:
        return (
            f"the host computes up to {self.most_rows:,} rows of an expert of {human_bytes(self.expert_bytes)}: "
            f"link {self.link}; host {self.host}; device {self.device}"
        )

    def _repr_html_(self) -> str:
        rows = {
            "link": str(self.link),
            "host": str(self.host),
            "device": str(self.device),
            "rows that the host computes": f"up to {self.most_rows:,}",
        }
        return facts("HostRule", rows)


def rows_on_host(
    body: Experts,
    tensors: tuple[Tensor, ...],
    x: Float[Tensor, "T D"],
    plan: SparseRouting,
    context: RouteContext,
) -> Float[Tensor, "N D"]:
    """Every row of a plan after its expert, computed in the host; where the rows came from.

    Args:
        tensors: in the memory of the host, stacked as the plan numbers its experts.
    """
    rows, counts = plan.dispatch(x)
    below = SparseRouting.identity(counts.cpu())
    return body.unweighted(tensors, rows.cpu(), below, context).to(x.device)


def measure_host(
    body: Experts,
    link: TieredLink,
    *,
    width: int,
    dtype: torch.dtype,
    rounds: int = 9,
) -> HostRule:
    """The rule of this machine, from the experts' own mathematics and the copies that the engine makes.

    One row tells how fast weights are read, many rows how fast they are multiplied. The quickest of the rounds counts:
    whatever disturbs a measurement only makes it slower.

    Args:
        link: whose slots are overwritten, so nothing may be in them yet.
        width: of a row.
        dtype: of a row.
    """
    pool, host = link.pool, link.host_pool
    few = min(8, pool.capacity), min(8, host.capacity)
    for slots, count in zip((pool, host), few, strict=True):
        for tensor in slots.tensors:
            tensor[:count] = 0.01
    shape, is_apart = pool.shape, pool.device.type != "cpu"
    turn = iter(range(1 << 30))

    def move() -> None:
        number = next(turn)
        pool.copy(number % few[0], host, number % few[1])

    taken = _seconds(move, rounds, torch.device("cpu"))
    speed = shape.num_bytes / min(taken)
    row = torch.zeros(1, width, dtype=dtype, device=pool.device)
    start = min(_seconds(lambda: row.cpu().to(pool.device), rounds, pool.device)) / 2 if is_apart else 0.0
    row_flops = 2.0 * sum(math.prod(part.shape) for part in shape.parts)
    costs = {}
    for slots, count in ((host, few[1]), (pool, few[0])):
        seconds = [_expert_seconds(body, slots, count, rows, width, dtype, rounds) for rows in (_FEW, _MANY)]
        costs[slots] = ComputeCost(
            bytes_per_second=shape.num_bytes / seconds[0], flops_per_second=_MANY * row_flops / seconds[1]
        )
    moved = LinkCost(
        bytes_per_second=speed,
        spread=max(taken) / min(taken),
        block_bytes=shape.num_bytes,
        source=f"{rounds} copies of an expert",
    )
    rows = LinkCost(start_seconds=start, bytes_per_second=speed, source=f"{rounds} copies of a row there and back")
    return HostRule(
        expert_bytes=shape.num_bytes,
        row_flops=row_flops,
        # rows come back as they were added up.
        row_bytes=width * (dtype.itemsize + torch.float32.itemsize) if is_apart else 0,
        link=moved,
        rows=rows if is_apart else _FREE,
        host=costs[host],
        device=costs[pool],
        # who comes up sends somebody down, where nobody is in two tiers.
        copies=1 if link.host.is_inclusive else 2,
    )


def _expert_seconds(
    body: Experts, slots: SlotPool, count: int, rows: int, width: int, dtype: torch.dtype, rounds: int
) -> float:
    """Of one expert for so many rows, each time another one, so that no cache holds its weights [s]."""
    device, turn = slots.device, iter(range(1 << 30))
    x = torch.zeros(rows, width, dtype=dtype, device=device)
    context = RouteContext(layer=0, num_layers=1, phase="decode")

    @torch.no_grad()
    def compute() -> None:
        number = next(turn) % count
        counts = torch.zeros(slots.capacity, dtype=torch.int64, device=device)
        counts[number] = rows
        body.unweighted(slots.tensors, x, SparseRouting.identity(counts), context)

    return min(_seconds(compute, rounds, device))


def _seconds(what: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        what()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    # the first one wakes threads and compiles kernels.
    return taken[1:]
