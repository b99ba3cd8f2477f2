"""What commands, hubs and texts know of a run: they import this, and the run imports them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from workbench.hub.commands import Command, Ledger
from workbench.hub.run_store import RunStore
from workbench.live.desk import Desk
from workbench.live.outlet import Outlet
from workbench.live.pace import Pace
from workbench.live.steering import Steering
from workbench.offload.model import OffloadedModel
from workbench.train.trainer import Trainer

__all__ = ["Watched"]


class Watched(ABC):
    """A training that is watched and steered: its parts, and what viewers have changed about it.

    Attributes:
        trainer: whose steps are watched; with a recorder.
        outlet: where frames go.
        desk: where commands wait for the end of a step.
        ledger: of the commands that were answered.
        pace: whether it goes on after a step.
        left: steps that it has still to do.
        driver: who may give commands; None until somebody does.
        frames_per_second: of the pictures that viewers get, at most.
        shadow: the router that watches the same hidden states, in words.
        effects: of experts, as they were measured.
        undo_stack: what can be taken back, in words, and how; newest last.
        offloaded: writes the texts that viewers ask for, in the place of the model that trains.
    """

    run_id: str
    owner: str
    title: str
    started_at: float
    trainer: Trainer
    outlet: Outlet
    desk: Desk
    store: RunStore
    ledger: Ledger
    steering: Steering
    pace: Pace
    left: int
    driver: str | None
    frames_per_second: float
    shadow: str | None
    effects: list[dict[str, Any]]
    undo_stack: list[tuple[str, Callable[[], str]]]
    offloaded: OffloadedModel | None

    @property
    @abstractmethod
    def status(self) -> str:
        """`waiting`, `running`, `paused`, `finished`, `stopped` or `crashed`."""

    @abstractmethod
    def accept(self, command: Command) -> None:
        """Put a checked command of a viewer on the desk; what becomes of it comes in the topic `commands`."""

    @abstractmethod
    def watch(self, watcher: Hashable, topics: Iterable[str]) -> None:
        """Somebody looks at these topics from now on, in the place of those before; none to leave."""

    @abstractmethod
    def publish_state(self) -> None:
        """Tell viewers how the run stands."""
