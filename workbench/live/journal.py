"""What was asked of a run and what became of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, final

from workbench.hub.commands import Command, python
from workbench.hub.frames import DELTA, WHOLE
from workbench.hub.run_store import RunStore
from workbench.live.plain import plain_json

__all__ = ["Journal"]

_KEPT = 200


@final
class Journal:
    """The life of every command, published as it goes on; the newest two hundred are kept.

    Args:
        store: of the run's frames.
    """

    def __init__(self, store: RunStore):
        self._store = store
        self._records: dict[str, dict[str, Any]] = {}

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """Every command with what became of it, oldest first."""
        return tuple(self._records.values())

    def note(
        self,
        command: Command,
        status: Literal["accepted", "applied", "refused"],
        step: int,
        *,
        reason: str = "",
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """What became of a command.

        Args:
            step: at which it was accepted or refused, or the first that it changed.
            reason: in words.
            result: plain values for views.
        """
        record = {**asdict(command), "status": status, "step": step, "reason": reason, "time": time.time()}
        record |= {"python": python(command.op, command.args), "result": dict(result or {})}
        is_first = not self._records
        self._records[command.id] = record
        while len(self._records) > _KEPT:
            del self._records[next(iter(self._records))]
        if is_first or self._store.needs_whole("commands"):
            self._put([*self._records.values()], WHOLE, step)
        else:
            self._put([record], DELTA, step)

    def _put(self, records: Sequence[Mapping[str, Any]], kind: int, step: int) -> None:
        self._store.put("commands", plain_json(records), kind=kind, step=step)
