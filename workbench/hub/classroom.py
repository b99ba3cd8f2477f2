"""What an instructor sees of a class: who trains, how far it is, and never what was written."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["roster"]

_SHOWN_ID = 8
_NUMBERS = ("step", "target_step", "loss", "num_experts", "idle_experts", "overloaded_experts")


def roster(states: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per run: owner, the beginning of its id, status, counts and seconds; no title, text or error."""
    now = time.time()
    return [
        {
            "owner": str(state.get("owner", "")),
            "id": str(state.get("id", ""))[:_SHOWN_ID],
            "status": str(state.get("status", "")),
            **{name: _count(state.get(name)) for name in _NUMBERS},
            "seconds": max(0.0, now - started) if (started := _count(state.get("started_at"))) is not None else None,
        }
        for state in states
    ]


def _count(value: Any) -> float | int | None:
    """A number, or how many there are of a list; None for anything else."""
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
