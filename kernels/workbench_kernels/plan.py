"""Who goes where: the rows of every expert, and the row of every slot, without a word from the device to the host."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from workbench_kernels.backend import backend_of, engine_of
from workbench_kernels.tracing import is_traced

__all__ = ["LIMIT", "RoutingPlan", "offsets_of", "plan_from_groups", "plan_from_mask", "plan_routing"]

# Kernels count in 32 bits, and to the end of the block that holds the last row.
LIMIT = 2**31 - 2**16


@dataclass(frozen=True, eq=False)
class RoutingPlan:
    """The rows of each expert in token order, and where each slot's row lies.

    Args:
        rows: token of each row; rows from `offsets[-1]` on are padding and hold 0.
        row_of: row of each slot, -1 where the slot has none.
        offsets: first row of each expert; the last entry is the number of rows in use.
    """

    rows: Int32[Tensor, "S"]
    row_of: Int32[Tensor, "T K"]
    offsets: Int32[Tensor, "E1"]

    @property
    def num_experts(self) -> int:
        """Experts that rows may belong to."""
        return self.offsets.shape[0] - 1

    @property
    def num_tokens(self) -> int:
        """Tokens that were routed."""
        return self.row_of.shape[0]

    @property
    def top_k(self) -> int:
        """Slots per token, empty ones included."""
        return self.row_of.shape[1]

    @property
    def num_rows(self) -> int:
        """Rows that buffers must have, padding included: known without asking the device."""
        return self.rows.shape[0]

    @property
    def counts(self) -> Int32[Tensor, "E"]:
        """Rows of each expert."""
        return self.offsets.diff()

    def tiles(self, block: int) -> tuple[Int32[Tensor, "B"], Int32[Tensor, "B"]]:
        """Expert and first row of every tile of at most `block` rows; the unused tiles have expert -1.

        The number of tiles is an upper bound that the host knows: one partly filled tile per expert.
        """
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}; 64 and 128 are usual")
        bound = -(-self.num_rows // block) + min(self.num_experts, self.num_rows)
        ends = ((self.counts + block - 1) // block).cumsum(0)
        tile = torch.arange(bound, dtype=ends.dtype, device=ends.device)
        expert = torch.searchsorted(ends, tile, right=True)
        is_used = expert < self.num_experts
        if self.num_experts == 0:
            return tile.new_empty(0, dtype=torch.int32), tile.new_empty(0, dtype=torch.int32)
        own = expert.clamp_max(self.num_experts - 1)
        before = torch.where(own > 0, ends[(own - 1).clamp_min(0)], 0)
        row = self.offsets[own] + (tile - before) * block
        return torch.where(is_used, expert, -1).int(), torch.where(is_used, row, 0).int()


def plan_routing(expert: Int[Tensor, "T K"], num_experts: int) -> RoutingPlan:
    """The plan of a choice of experts, in the order of tokens: a stable counting sort.

    Args:
        expert: chosen experts; an id outside 0 to `num_experts` - 1 (an empty slot, or an expert that another
            process holds) gets no row. The same expert may be chosen twice.

    Raises:
        ValueError: the ids are not a matrix of int32 or int64, or there are 2**31 - 2**16 slots or more.
    """
    _check(expert, num_experts)
    make = torch.ops.workbench_kernels.plan_routing if is_traced(expert) else _plan_op
    return RoutingPlan(*make(expert.contiguous(), num_experts))


def plan_from_mask(mask: Bool[Tensor, "T E"]) -> RoutingPlan:
    """The plan in which every token goes to the experts of its mask row; slot e is expert e, so weights are T x E.

    Buffers are sized for every token at every expert: compact the slots first where the mask is sparse.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape tokens x experts, got {_describe(mask)}; compare it with > 0")
    ids = torch.arange(mask.shape[1], dtype=torch.int32, device=mask.device)
    return plan_routing(torch.where(mask, ids, -1), mask.shape[1])


def plan_from_groups(token: Int[Tensor, "E C"], num_tokens: int) -> RoutingPlan:
    """The plan in which every expert names its tokens, each at most once; slot e is expert e, so weights are T x E.

    Args:
        token: tokens of each expert; an id outside 0 to `num_tokens` - 1 is an unused place.
    """
    if token.dim() != 2 or token.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"token must be int32 or int64 of shape experts x places, got {_describe(token)}")
    place = torch.where((token >= 0) & (token < num_tokens), token, num_tokens).long()
    mask = torch.zeros(token.shape[0], num_tokens + 1, dtype=torch.bool, device=token.device)
    return plan_from_mask(mask.scatter(1, place, True)[:, :num_tokens].t())


def offsets_of(counts: Int[Tensor, "E"]) -> Int32[Tensor, "E1"]:
    """First row of each group of so many rows, and the end of the last."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _check(expert: Tensor, num_experts: int) -> None:
    if expert.dim() != 2 or expert.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"expert must be int32 or int64 of shape tokens x slots, got {_describe(expert)}; "
            "pass the indices of topk, reshaped to one row per token"
        )
    if num_experts < 0:
        raise ValueError(f"num_experts must be at least 0, got {num_experts}")
    if expert.shape[0] * expert.shape[1] >= LIMIT:
        raise ValueError(
            f"a plan holds less than 2**31 - 2**16 slots, got {expert.shape[0]} tokens with {expert.shape[1]} each; "
            "split the batch"
        )


def _plan_op(expert: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    engine = engine_of(backend_of(expert.device, torch.float32))
    rows, row_of, offsets = engine.plan(expert, num_experts)
    return rows, row_of, offsets


def _plan_fake(expert: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    slots = expert.shape[0] * expert.shape[1]
    return (
        expert.new_empty(slots, dtype=torch.int32),
        expert.new_empty(expert.shape, dtype=torch.int32),
        expert.new_empty(num_experts + 1, dtype=torch.int32),
    )


_LIBRARY = torch.library.Library("workbench_kernels", "FRAGMENT")
_LIBRARY.define("plan_routing(Tensor expert, SymInt num_experts) -> (Tensor, Tensor, Tensor)")
_LIBRARY.impl("plan_routing", _plan_op, "CompositeExplicitAutograd")
torch.library.register_fake("workbench_kernels::plan_routing", _plan_fake, lib=_LIBRARY)
