"""Who may see a run, who may drive it, and who may see the class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from workbench.hub.schema import CommandError

__all__ = ["Rules"]


@final
@dataclass(frozen=True, kw_only=True)
class Rules:
    """The roles on a server.

    On a server of one person, whoever is logged in is that person and owns every run. On a shared server a run has the
    owner that it says; others see it when its state says `is_shared`, and drive it when its `drivers` name them.

    Args:
        owner: whose server it is; unused on a shared one.
        is_shared: several people use this server, and its log-in tells them apart.
        instructors: who may see the roster and tell all runs something.
    """

    owner: str = ""
    is_shared: bool = False
    instructors: frozenset[str] = frozenset()

    def actor(self, user: str) -> str:
        """The name under which somebody who is logged in acts."""
        return user if self.is_shared else self.owner

    def is_instructor(self, user: str) -> bool:
        """True for those whom the server's configuration names, by their log-in or by whose server this is."""
        return bool(self.instructors & {user, self.actor(user)})

    def is_owner(self, user: str, state: Mapping[str, Any]) -> bool:
        """True for the one whose run it is."""
        return not self.is_shared or state.get("owner") == user

    def role(self, user: str, state: Mapping[str, Any]) -> str | None:
        """`owner`, `driver`, `viewer`, or None for somebody whom the run does not concern."""
        if self.is_owner(user, state):
            return "owner"
        if state.get("is_shared") is not True:
            return None
        drivers = state.get("drivers")
        return "driver" if isinstance(drivers, list) and user in drivers else "viewer"

    def check_drive(self, user: str, state: Mapping[str, Any]) -> None:
        """Nothing, or a refusal.

        Raises:
            CommandError: 403, not the owner's and not a driver's.
        """
        if self.role(user, state) not in ("owner", "driver"):
            raise CommandError(403, f"{user or 'you'} may watch this run but not drive it; ask its owner")

    def check_instructor(self, user: str) -> None:
        """Nothing, or a refusal.

        Raises:
            CommandError: 403, not an instructor.
        """
        if not self.is_instructor(user):
            raise CommandError(403, "only an instructor of this server may do that; its configuration names them")
