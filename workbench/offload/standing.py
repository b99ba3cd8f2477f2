"""How an engine stands: the room that budgets leave in each tier, in words and as plain data for views."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.core.units import human_bytes
from workbench.offload.engine import OffloadEngine
from workbench.trace.schema import TIERS

__all__ = ["experts_in", "room_words", "standing"]


def experts_in(tier: NDArray[np.int8]) -> dict[str, int]:
    """How many experts lie in each tier, by its name; one in two tiers counts in the faster.

    Args:
        tier: as `OffloadEngine.residency` gives it.
    """
    return dict(zip(TIERS, np.bincount(tier.ravel(), minlength=len(TIERS)).tolist(), strict=True))


def room_words(engine: OffloadEngine) -> str:
    """What fits where, on one line."""
    most, unit = _pages(engine), engine.precision.unit
    each = f", {most / len(engine.precision.pages_of):.3g} an expert" if engine.precision.levels > 1 else ""
    words = f"room for {min(engine.capacity, most)} of {most} {unit}{each}, read {engine.store.way}"
    if engine.host is None:
        return words
    return f"{words}; room for {min(engine.host.capacity, most)} more in the host ({_host_words(engine)})"


def standing(engine: OffloadEngine, experts: Mapping[str, int]) -> dict[str, Any]:
    """How an engine stands, as plain data for views. A slot holds an expert, or a page of one.

    Args:
        experts: how many lie in each tier, as `experts_in` counts them.
    """
    pages, ledger = _pages(engine), engine.ledger
    # two tiers on a CPU: what is called the device elsewhere is the memory of the host.
    near = "host" if engine.host is None and engine.device.type == "cpu" else "device"
    room = {near: min(engine.capacity, pages)}
    budgets = {near: human_bytes(engine.budget_bytes)}
    if engine.host is not None and engine.host_budget_bytes is not None:
        room["host"] = min(engine.host.capacity, pages)
        budgets["host"] = human_bytes(engine.host_budget_bytes)
    return {
        "near": near,
        "slots": room[near],
        "least_slots": engine.top_k,
        "most_slots": min(engine.pool.capacity, pages),
        "all_slots": pages,
        "slot_bytes": engine.store.shape.num_bytes,
        "pages_each": None if engine.precision.levels == 1 else pages / len(engine.precision.pages_of),
        "experts": dict(experts),
        "room": room,
        "budgets": budgets,
        "policy": str(engine.policy),
        "prefetcher": None if engine.prefetcher is None else str(engine.prefetcher),
        "host_policy": None if engine.host is None else str(engine.host_policy),
        "is_inclusive": engine.host is not None and engine.host.is_inclusive,
        "hit_rate": ledger.hit_rate if ledger.requests else None,
        "requests": ledger.requests,
        "host_computed": ledger.host_computed if engine.host_side is not None else None,
        "precision": engine.badge,
    }


def _host_words(engine: OffloadEngine) -> str:
    assert engine.host is not None, "asked for only where there is one"
    return f"policy {engine.host_policy}, {'inclusive' if engine.host.is_inclusive else 'exclusive'}"


def _pages(engine: OffloadEngine) -> int:
    """Pages that are ever asked for: with levels by importance fewer than the store has."""
    return sum(engine.precision.pages_of)
