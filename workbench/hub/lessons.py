"""Lessons: what a class can start with one click, and the links that carry every setting."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import parse_qsl, urlencode

from workbench.hub.schema import Argument, CommandError, check_arguments, shown

__all__ = ["LESSONS", "Lesson", "encode_link", "parse_link", "read_request"]

_LARGEST_LINK_CHARACTERS = 4096

_OPTIONS: Mapping[str, Argument] = {
    "model": Argument(kind="choice", choices=("tiny", "small", "base"), default="tiny"),
    "corpus": Argument(kind="name", default="mixed"),
    "router": Argument(kind="name", default="top_k"),
    "router_args": Argument(kind="scalars", default={}),
    "shadow": Argument(kind="name", default=None, is_nullable=True),
    "seed": Argument(kind="integer", low=0, high=2**31 - 1, default=0),
    "steps": Argument(kind="integer", low=1, high=100_000, default=2000),
    "batch_size": Argument(kind="integer", low=1, high=64, default=16),
    "sequence_length": Argument(kind="integer", low=16, high=512, default=128),
    "learning_rate": Argument(kind="number", low=1e-6, high=1, default=3e-3),
    "balance": Argument(kind="number", low=0, high=10, default=None, is_nullable=True),
    "device": Argument(kind="choice", choices=("cpu", "gpu"), default="cpu"),
}


@final
@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Something to start: its words, and its own settings in place of the common defaults.

    `balance` is the weight of the balance loss; null keeps the router's own.
    """

    id: str
    title: str
    description: str
    settings: Mapping[str, Any]

    @property
    def options(self) -> Mapping[str, Argument]:
        """What may be set, with bounds and this lesson's defaults."""
        return {
            name: Argument(**{**vars(argument), "default": self.settings.get(name, argument.default)})
            for name, argument in _OPTIONS.items()
        }

    def complete(self, options: Any) -> dict[str, Any]:
        """Every option, those that were given and this lesson's defaults.

        Raises:
            CommandError: 422.
        """
        return check_arguments(self.id, self.options, options)

    def to_json(self) -> dict[str, Any]:
        """The lesson as a form needs it, with the link that starts it as it is."""
        options = {name: argument.to_json() for name, argument in self.options.items()}
        words = {"id": self.id, "title": self.title, "description": self.description}
        return {**words, "options": options, "link": encode_link(self.id, {})}


_ALL = (
    Lesson(
        id="first_run",
        title="Watch a mixture of experts learn",
        description="A tiny model on mixed text. Watch the loss fall and the experts share the work.",
        settings={},
    ),
    Lesson(
        id="without_balance",
        title="What balance is for",
        description="The same model with no balance loss. Which experts stop getting tokens, and when?",
        settings={"balance": 0},
    ),
    Lesson(
        id="swap_the_router",
        title="Swap the router while it trains",
        description="Start with one router, choose another, and see which tokens move. Undo takes it back.",
        settings={"router": "switch"},
    ),
    Lesson(
        id="two_routers",
        title="Two routers, the same tokens",
        description="A second router watches and learns without any effect on the model. Where do the two agree?",
        settings={"shadow": "expert_choice"},
    ),
    Lesson(
        id="who_does_what",
        title="Do experts take sides?",
        description="A corpus whose domains use different tokens. Look for experts that belong to one domain.",
        settings={"corpus": "token_remap"},
    ),
)

LESSONS: Mapping[str, Lesson] = {lesson.id: lesson for lesson in _ALL}
"""The closed list of what can be started."""


def lesson(name: object) -> Lesson:
    """A lesson by its id.

    Raises:
        CommandError: 422, with the lessons that there are.
    """
    if not isinstance(name, str) or name not in LESSONS:
        raise CommandError(422, f"no preset is called {shown(name)}; choose {', '.join(LESSONS)}")
    return LESSONS[name]


def encode_link(preset: str, options: Mapping[str, Any]) -> str:
    """The query of a link that carries every setting, those left at their defaults too.

    Raises:
        CommandError: 422, no such preset or a setting out of bounds.
    """
    complete = lesson(preset).complete(dict(options))
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in complete.items()}
    return urlencode({"preset": preset, **values})


def parse_link(query: str) -> tuple[str, dict[str, Any]]:
    """The preset and its options from the query of a link.

    Raises:
        CommandError: 422, not a link of ours.
    """
    if len(query) > _LARGEST_LINK_CHARACTERS:
        raise CommandError(422, f"a link has at most {_LARGEST_LINK_CHARACTERS:,} characters, got {len(query):,}")
    pairs = parse_qsl(query.lstrip("?"), keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise CommandError(422, "a link names every setting once; make it again")
    values = dict(pairs)
    chosen = lesson(values.pop("preset", None))
    given = {
        name: _value(chosen.options[name], text) if name in chosen.options else text for name, text in values.items()
    }
    return chosen.id, chosen.complete(given)


def read_request(message: Mapping[str, Any]) -> tuple[Lesson, dict[str, Any]]:
    """The lesson and the options that a request to start asks for: `preset` and `options`, or a `link`.

    Raises:
        CommandError: 422.
    """
    unknown = set(message) - {"preset", "options", "link"}
    if unknown or ("link" in message) == ("preset" in message):
        raise CommandError(422, "start takes preset and options, or link; send one of the two")
    if "link" not in message:
        chosen = lesson(message["preset"])
        return chosen, chosen.complete(message.get("options", {}))
    if not isinstance(message["link"], str):
        raise CommandError(422, f"link must be a text, got {shown(message['link'])}")
    name, options = parse_link(message["link"])
    return LESSONS[name], options


def _value(argument: Argument, text: str) -> Any:
    """A setting as its kind has it; what cannot be read stays a text, and the check refuses it."""
    if argument.kind in ("name", "choice", "text"):
        return None if argument.is_nullable and text == "null" else text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
