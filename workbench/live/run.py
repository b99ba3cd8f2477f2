"""A run that can be watched and steered while it trains."""

import atexit
import getpass
import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from typing import Any, final

from workbench.core.html import facts
from workbench.core.records import StepReport
from workbench.hub.commands import Command, Ledger
from workbench.hub.places import new_run_id
from workbench.live.actions import ACTIONS, AT_ONCE, Done, checked
from workbench.live.control import Control, answer
from workbench.live.desk import Desk
from workbench.live.facts import facts_of
from workbench.live.outlet import Outlet
from workbench.live.pace import Pace
from workbench.live.plain import plain_json
from workbench.live.steering import Steering
from workbench.live.watched import Watched
from workbench.train.trainer import Trainer

__all__ = ["LiveRun", "RunStopped"]

_TOLD = ("is_shared", "drivers", "title", "owner", "driver", "kind", "started_at", "shadow", "frames_per_second")
_ENDED = ("finished", "stopped", "crashed")


class RunStopped(RuntimeError):
    """A run in the background has ended before what was waited for."""


@final
class LiveRun(Watched):
    """A training with everything a viewer needs: its frames, its commands, and who may give them.

    Args:
        trainer: whose steps are watched; with a recorder.
        title: what people see.
        code: the Python that makes this run.
        kind: where it runs: `notebook`, `command line` or `child`.
        owner: of the run; the user of this process by default.
        run_id: 128 random bits by default.
        show: what a notebook displays of it beside its facts, by MIME type.

    Attributes:
        is_shared: whether other people of a shared server may watch it; those in `drivers` may also drive it.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        title: str = "",
        code: str = "",
        kind: str = "notebook",
        owner: str | None = None,
        run_id: str | None = None,
        show: Callable[["LiveRun"], dict[str, Any]] = lambda run: {},
    ):
        self.trainer, self.title, self.code, self.kind = trainer, title, code, kind
        self.run_id, self.owner = run_id or new_run_id(), owner or getpass.getuser()
        self._show = show
        assert trainer.recorder is not None, "a run that is watched records"
        self.outlet, self.desk = Outlet(trainer.recorder), Desk()
        config = trainer.model.config
        self.store = self.outlet.store
        self.steering = Steering(len(config.moe_layers), config.num_experts)
        self.frames_per_second, self.started_at = 10.0, time.time()
        self.offloaded = self.driver = self.shadow = None
        self.effects, self.undo_stack = [], []
        self.is_shared, self.drivers = False, ()
        self._control: Control | None = None
        self.ledger = Ledger()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._report: StepReport | None = None
        self._status, self._message, self._published = "waiting", "", 0.0
        self.pace, self.left, self._is_holding = Pace(self._paced), 0, False

    @property
    def is_open(self) -> bool:
        """Whether it can be watched."""
        return self.outlet.is_open

    @property
    def status(self) -> str:
        """`waiting`, `running`, `paused`, `finished`, `stopped` or `crashed`."""
        return "paused" if self._status == "running" and self._is_holding else self._status

    def open(self) -> "LiveRun":
        """Announce the run, so that every hub of this user finds it. A second call does nothing."""
        if not self.is_open:
            with self.desk.turn():
                self.outlet.open()
                self.publish_state()
            # without a last word every hub would take the run for lost.
            atexit.register(self.close)
            try:
                self._control = Control(self)
            except OSError as error:
                warnings.warn(f"{error}; it trains all the same, and a notebook's widget shows it", stacklevel=2)
        return self

    def watch(self, watcher: Hashable, topics: Iterable[str]) -> None:
        """See `Outlet.watch`."""
        self.outlet.watch(watcher, topics)

    def steps(self, count: int) -> Iterator[StepReport]:
        """Train so many more steps on the caller's thread, in between do what viewers ask for; `stop` ends it early."""
        self._begin(count)
        yield from self._going_on(count)

    def _going_on(self, count: int) -> Iterator[StepReport]:
        reports = self.trainer.run(count)
        try:
            while self._may_go_on():
                with self.desk.turn():
                    if (report := next(reports, None)) is None:
                        # after a reset there are more steps to the end than there were.
                        reports = self.trainer.run(self.left)
                        report = next(reports, None)
                    if report is None:
                        break
                    self._after(report)
                yield report
            self._end("stopped" if self.pace.is_stopping else "waiting", reports)
        except BaseException as error:
            is_left = isinstance(error, (GeneratorExit, KeyboardInterrupt))
            self._message = "" if is_left else f"{type(error).__name__}: {error}"
            self._end("waiting" if is_left else "crashed", reports)
            raise

    def start(self, count: int) -> "LiveRun":
        """Train so many more steps on a thread of its own, and return at once.

        Raises:
            RuntimeError: it trains already.
        """
        if self._status == "running":
            raise RuntimeError("this run trains already; wait() for it first")
        self.open()
        self._error = None
        # here and not on the thread: a stop that comes before its first step must hold.
        self._begin(count)
        self._thread = threading.Thread(target=self._train, args=(count,), name="workbench training", daemon=True)
        self._thread.start()
        return self

    def wait(self, timeout_seconds: float | None = None) -> StepReport | None:
        """Until the thread has trained what it was asked for; the last report. An interrupt pauses the run.

        Raises:
            TimeoutError: it still trains.
            RunStopped: it crashed; the cause says how.
        """
        if self._thread is not None:
            try:
                self._thread.join(timeout_seconds)
            except KeyboardInterrupt:
                self.pace.pause()
                raise
            if self._thread.is_alive():
                raise TimeoutError(f"the run is {self.status} at step {self.trainer.step}")
        if self._error is not None:
            raise RunStopped(f"the run crashed at step {self.trainer.step}: {self._error}") from self._error
        return self._report

    def command(self, op: str, *, actor: str = "python", **args: Any) -> Any:
        """Do what a viewer could ask for, between two steps or now, and give back what came of it.

        Raises:
            LookupError: an unknown name.
            TypeError: arguments that the command does not take.
            ValueError: it cannot be done now; the run goes on as it was.
        """
        command = Command(id=f"python-{new_run_id()}", op=op, args=checked(op, args), actor=actor)
        self.outlet.journal.note(command, "accepted", self.trainer.step)
        return self.desk.do(lambda: self._apply(command, is_strict=True)).value

    def accept(self, command: Command) -> None:
        """Put a checked command of a viewer on the desk; what becomes of it comes in the topic `commands`."""
        self.outlet.journal.note(command, "accepted", self.trainer.step)
        if command.op in AT_ONCE:
            self._apply(command, is_strict=False)
        else:
            self.desk.submit(lambda: self._apply(command, is_strict=False))

    def send(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a command `{id, op, args}` of a widget in this notebook; its acknowledgement."""
        return answer(self, {**command, "actor": self.owner})

    def publish_state(self) -> None:
        """Tell viewers how the run stands."""
        if self.is_open:
            self.outlet.put("state", plain_json(self.state()), step=self.trainer.step)

    def state(self) -> dict[str, Any]:
        """How the run stands, as viewers get it."""
        return {
            "id": self.run_id,
            **{name: vars(self)[name] for name in _TOLD},
            "status": self.status,
            "target_step": self.trainer.step + self.left,
            "error": self._message or None,
            "pid": os.getpid(),
            "steering": self.steering.to_json(),
            "can_undo": self.undo_stack[-1][0] if self.undo_stack else None,
            "python": self.code,
            **facts_of(self.trainer, self._report, self.offloaded),
            **self.outlet.crowds,
        }

    def close(self) -> None:
        """End training and threads, and take back the announcement; what viewers have stays."""
        self.pace.stop()
        if self._thread is not None:
            self._thread.join()
        self._status = self._status if self._status in _ENDED else "finished"
        self.publish_state()
        self.outlet.close()
        atexit.unregister(self.close)
        if self._control is not None:
            self._control.close()
            self._control = None

    def _train(self, count: int) -> None:
        try:
            for _ in self._going_on(count):
                pass
        except BaseException as error:
            self._error = error

    def _begin(self, count: int) -> None:
        self.trainer.changes.keep_start(self.trainer.state)
        self._status, self.left, self._message = "running", count, ""
        self.pace.begin()
        self.publish_state()

    def _may_go_on(self) -> bool:
        """Between two steps: do what waits; while paused, wait for more."""
        self.desk.clear()
        if self.pace.is_paused:
            self._is_holding = True
            self.publish_state()
        while self.pace.is_paused:
            self.desk.wait(0.2)
            self.desk.clear()
        self._is_holding = False
        return not self.pace.is_stopping

    def _after(self, report: StepReport) -> None:
        self._report, self.left = report, self.left - 1
        self.pace.did_step()
        if self.is_open and time.monotonic() - self._published >= 1 / self.frames_per_second:
            self._published = time.monotonic()
            self.outlet.catch_up()
            self.publish_state()

    def _end(self, status: str, reports: Generator[StepReport, None, None]) -> None:
        with self.desk.turn():
            # closing the loop of a trainer saves the run.
            reports.close()
            self.left, self._status = 0, status
            self.outlet.catch_up()
            self.publish_state()

    def _paced(self) -> None:
        self.desk.wake()
        self.publish_state()

    def _apply(self, command: Command, *, is_strict: bool) -> Done:
        try:
            done = ACTIONS[command.op](self, command.args, command.actor)
        except (ValueError, LookupError, OSError, RuntimeError) as error:
            self.outlet.journal.note(command, "refused", self.trainer.step, reason=str(error))
            if is_strict:
                raise
            return Done(str(error))
        if done.undo is not None:
            self.undo_stack.append(done.undo)
        self.outlet.journal.note(command, "applied", self.trainer.step + 1, reason=done.words, result=done.result)
        self.publish_state()
        return done

    def _repr_html_(self) -> str:
        rows = {"status": self.status, "step": self.trainer.step, "router": str(self.trainer.model.config.router)}
        return facts(f"Run {self.title}", rows, note="display the session to watch and steer it")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), **self._show(self)}
