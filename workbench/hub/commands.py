"""The closed list of commands: what each takes, how a message is checked, and the same thing as a line of Python."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from workbench.hub.schema import Argument, CommandError, check_arguments, shown

__all__ = ["CHOICES", "COMMANDS", "HUB_COMMANDS", "Command", "Ledger", "check_choice", "check_command", "python"]

_NONE: Mapping[str, Argument] = {}
_NAME = Argument(kind="name")
_ARGS = Argument(kind="scalars", default={})
_PLACE = {"layer": Argument(kind="integer", low=0, high=999), "expert": Argument(kind="integer", low=0, high=65535)}

COMMANDS: Mapping[str, Mapping[str, Argument]] = {
    "annotate": {"text": Argument(kind="text", low=1, high=500)},
    "ban_expert": _PLACE,
    "bias_expert": {**_PLACE, "bias": Argument(kind="number", low=-20, high=20)},
    "checkpoint": _NONE,
    "generate": {
        "prompt": Argument(kind="text", low=0, high=4096),
        "max_new_tokens": Argument(kind="integer", low=1, high=512, default=64),
        "temperature": Argument(kind="number", low=0, high=5, default=0.8),
        "top_p": Argument(kind="number", low=0, high=1, default=0.95),
        "seed": Argument(kind="integer", low=0, high=2**31 - 1, default=0),
    },
    "measure_expert": _PLACE,
    "pause": _NONE,
    "pin_expert": _PLACE,
    "reset": _NONE,
    "resume": _NONE,
    "rewind": _NONE,
    "set_cache_size": {"slots": Argument(kind="integer", low=1, high=10**6)},
    "set_policy": {"name": _NAME},
    "set_prefetcher": {"name": _NAME},
    "set_rate": {"frames_per_second": Argument(kind="number", low=0.1, high=20)},
    "set_router_args": {"args": Argument(kind="scalars")},
    "set_shadow": {"name": Argument(kind="name", is_nullable=True), "args": _ARGS},
    "step": {"count": Argument(kind="integer", low=1, high=1000, default=1)},
    "stop": _NONE,
    "swap_router": {
        "name": _NAME,
        "args": _ARGS,
        "carry": Argument(kind="boolean", default=True),
        "rebuild_experts": Argument(kind="boolean", default=False),
    },
    "take_over": _NONE,
    "undo": _NONE,
}
"""What a run understands: arguments by the name of the command."""

HUB_COMMANDS: Mapping[str, Mapping[str, Argument]] = {
    "broadcast": {"op": _NAME, "args": Argument(kind="object", default={})},
    "start": {"preset": _NAME, "options": _ARGS},
}
"""What the hub itself understands."""

CHOICES: Mapping[str, str] = {
    "set_policy": "policy",
    "set_prefetcher": "prefetcher",
    "set_shadow": "router",
    "swap_router": "router",
}
"""Commands whose `name` must be among the `choices` of the run's state, and under which heading."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEPT_ANSWERS = 1000


@dataclass(frozen=True)
class Command:
    """A checked command.

    Attributes:
        id: made by the sender, so that a command sent twice is done once.
        args: complete: defaults are filled in.
        actor: who sent it, as the server knows them.
    """

    id: str
    op: str
    args: Mapping[str, Any]
    actor: str = ""


def check_command(message: Mapping[str, Any], *, actor: str | None = None) -> Command:
    """The command that a message asks for.

    Args:
        message: `id`, `op`, `args`, and `actor` where the sender is trusted to say who commands.
        actor: who commands, where the message is not to be believed.

    Raises:
        CommandError: 422: not a command, or arguments that do not fit.
    """
    unknown = set(message) - {"id", "op", "args", "actor", "is_owner"}
    if unknown:
        raise CommandError(422, f"a command has id, op and args, got also {shown(sorted(unknown)[0])}; leave it out")
    name, op = message.get("id"), message.get("op")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise CommandError(
            422, f"id must be 1 to 64 letters, digits, - or _, got {shown(name)}; make a new uuid for every command"
        )
    if not isinstance(op, str) or op not in COMMANDS:
        raise CommandError(422, f"unknown command {shown(op)}; there are {', '.join(COMMANDS)}")
    args = check_arguments(op, COMMANDS[op], message.get("args", {}))
    who = message.get("actor", "") if actor is None else actor
    if not isinstance(who, str):
        raise CommandError(422, f"actor must be a name, got {shown(who)}")
    return Command(id=name, op=op, args=args, actor=who)


def check_choice(command: Command, state: Mapping[str, Any]) -> None:
    """Nothing, or a refusal of a name that the run does not offer.

    Raises:
        CommandError: 422, with the names that there are.
    """
    name, offered = command.args.get("name"), state.get("choices", {})
    heading = CHOICES.get(command.op)
    if heading is None or name is None or not isinstance(offered, dict) or not isinstance(offered.get(heading), list):
        return
    names = [str(choice["name"]) for choice in offered[heading] if isinstance(choice, dict) and "name" in choice]
    if name not in names:
        raise CommandError(422, f"{command.op}: no {heading} is called {shown(name)}; choose {', '.join(names)}")


@final
class Ledger:
    """The answers given so far, so that a command that comes again gets its answer again and is not done twice."""

    def __init__(self, *, limit: int = _KEPT_ANSWERS) -> None:
        self._limit = limit
        self._answers: OrderedDict[str, tuple[Command, dict[str, Any]]] = OrderedDict()

    def answer_to(self, command: Command) -> dict[str, Any] | None:
        """The answer that this command got before, None when it is new.

        Raises:
            CommandError: 409: its id belongs to another command.
        """
        known = self._answers.get(command.id)
        if known is None:
            return None
        if known[0] != command:
            raise CommandError(409, f"id {command.id} was used for another command; make a new uuid for every command")
        return known[1]

    def note(self, command: Command, answer: Mapping[str, Any]) -> None:
        """Remember the answer; the oldest is forgotten past the limit."""
        self._answers[command.id] = (command, dict(answer))
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)


def python(op: str, args: Mapping[str, Any]) -> str:
    """The line of Python that does the same in a notebook; empty where Python needs none (`take_over`)."""
    if op == "take_over":
        return ""
    if op in ("undo", "rewind"):
        return f"session.{op}()"
    if op == "generate":
        return f"session.ask({_listed(op, args, first='prompt', always=('max_new_tokens',))})"
    if op == "set_shadow":
        return f"session.set_shadow({_spec(args.get('name'), args.get('args', {}))!r})"
    if op == "swap_router":
        known = {name: value for name, value in args.items() if name != "args"}
        router = [f"{name}={value!r}" for name, value in args.get("args", {}).items()]
        return f"session.swap_router({', '.join([_listed(op, known, first='name'), *router])})"
    listed = _listed(op, args)
    return f"session.live.command({op!r}{', ' * bool(listed)}{listed})"


def _listed(op: str, args: Mapping[str, Any], *, first: str = "", always: tuple[str, ...] = ()) -> str:
    """Arguments as a call lists them: one by position, the rest by name, defaults left out."""
    schema = COMMANDS[op]
    by_name = [
        f"{name}={value!r}"
        for name, value in args.items()
        if name != first and (name in always or value != schema[name].default)
    ]
    by_position = [repr(args[first])] if first in args else []
    return ", ".join(by_position + by_name)


def _spec(name: str | None, args: Mapping[str, Any]) -> str | None:
    """A router and its arguments in one text, as `Spec.parse` reads it."""
    if name is None or not args:
        return name
    return f"{name}:{','.join(f'{key}={value!r}' for key, value in args.items())}"
