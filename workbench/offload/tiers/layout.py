"""Where experts are: on the device, in the memory of the host, or on disk; and the way between."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.offload.config import OffloadConfig, budget_bytes
from workbench.offload.policy import CacheShape
from workbench.offload.running import running_policy
from workbench.offload.store.expert_store import ExpertStore
from workbench.offload.tiers.capacity import host_capacity
from workbench.offload.tiers.disk_link import DiskLink
from workbench.offload.tiers.host_tier import HostTier
from workbench.offload.tiers.pool import SlotPool
from workbench.offload.tiers.tiered_link import TieredLink

__all__ = ["DEVICE", "DISK", "HOST", "buffer_bytes", "open_link", "tiers_of"]

DEVICE, HOST, DISK = 0, 1, 2


def buffer_bytes(store: ExpertStore, config: OffloadConfig, device: torch.device) -> int:
    """Memory of the host for the buffers of the readers [B]; none where blocks are read straight into slots."""
    reads_in_place = device.type == "cpu" and store.shape.is_aligned
    return 0 if reads_in_place else config.threads * store.shape.stride


def open_link(store: ExpertStore, pool: SlotPool, config: OffloadConfig, shape: CacheShape) -> DiskLink | TieredLink:
    """The way into the slots of a pool: from the disk, or from the host where a budget gives it a tier.

    Args:
        shape: of the cache on the device.

    Raises:
        LookupError: an unknown policy of the host tier.
        ValueError: a host budget that is too small, or an oracle.
    """
    if config.host_budget is None:
        return DiskLink(store, pool, threads=config.threads)
    capacity = host_capacity(
        budget_bytes(config.host_budget, store.dense_bytes),
        store.shape.num_bytes,
        # those of a CPU are in the budget of the device, which is the same memory.
        overhead=0 if pool.device.type == "cpu" else buffer_bytes(store, config, pool.device),
        most=store.num_pages,
        unit="experts" if store.encoding.levels == 1 else "pages of experts",
    )
    below = CacheShape(num_layers=shape.num_layers, num_experts=shape.num_experts, capacity=capacity, top_k=shape.top_k)
    host = HostTier(capacity, running_policy(config.host_policy, below), is_inclusive=config.inclusive)
    slots = SlotPool(store.shape, capacity + 1, torch.device("cpu"), partner=pool.device)
    return TieredLink(store, pool, slots, host, threads=config.threads)


def tiers_of(
    link: DiskLink | TieredLink, resident: Iterable[int], *, pages: int, device: torch.device
) -> NDArray[np.int8]:
    """The fastest tier of every page. With two tiers, the memory of a CPU counts as the host's.

    Args:
        resident: pages that have a slot on the device.
        pages: of the model.
    """
    where = np.full(pages, DISK, np.int8)
    is_tiered = isinstance(link, TieredLink)
    if isinstance(link, TieredLink):
        where[list(link.host.slot_of)] = HOST
    where[[page for page in resident if link.is_here(page)]] = DEVICE if is_tiered or device.type == "cuda" else HOST
    return where
