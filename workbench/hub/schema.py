"""What an argument of a command may be, and refusals that say what was expected, what came and what to do."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LARGEST_MESSAGE_BYTES", "REQUIRED", "Argument", "CommandError", "check_arguments", "parse_json", "shown"]

LARGEST_MESSAGE_BYTES = 64 * 1024

REQUIRED = object()
"""Default of an argument that must be given."""

MAX_SCALARS = 16
MAX_SCALAR_TEXT = 256
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class CommandError(ValueError):
    """A request that is refused.

    Args:
        code: as in HTTP: 400 not JSON, 403 not allowed, 404 no such run, 409 not now, 413 too large, 422 not a command
            or wrong arguments, 429 too many, 504 no answer.
        reason: a sentence for a person.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def shown(value: object) -> str:
    """A value as a refusal prints it: never long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument: its kind, its bounds and its default.

    Attributes:
        kind: `integer`, `number`, `boolean`, `text`, `name` (an identifier), `choice`, `scalars` (an object of plain
            values) or `object`.
        low, high: bounds of a number, or of the length of a text.
        default: `REQUIRED`, or the value when it is left out.
        is_nullable: null is good too.
        choices: of a `choice`.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    default: Any = REQUIRED
    is_nullable: bool = False
    choices: tuple[str, ...] = ()

    def describe(self) -> str:
        """What is expected, in words."""
        words = _KINDS[self.kind][0]
        if self.kind in ("integer", "number") and math.isfinite(self.low):
            words += f" from {self.low:g}" + (f" to {self.high:g}" if math.isfinite(self.high) else "")
        if self.kind == "text":
            words += f" of {self.low:g} to {self.high:g} characters"
        if self.kind == "choice":
            words += ", ".join(self.choices)
        return words + (" or null" if self.is_nullable else "")

    def to_json(self) -> dict[str, Any]:
        """The argument as a form needs it."""
        bounds = {"low": self.low, "high": self.high}
        known: dict[str, Any] = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
        known |= {"choices": list(self.choices)} if self.choices else {}
        known |= {} if self.default is REQUIRED else {"default": self.default}
        return {"kind": self.kind, "is_nullable": self.is_nullable, **known}

    def accepts(self, value: Any) -> bool:
        """True for a value of this kind within the bounds."""
        if value is None:
            return self.is_nullable
        if not _KINDS[self.kind][1](value):
            return False
        if self.kind in ("integer", "number"):
            return bool(self.low <= value <= self.high)
        if self.kind == "choice":
            return value in self.choices
        return self.kind != "text" or self.low <= len(value) <= self.high


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_scalar(value: Any) -> bool:
    is_text = isinstance(value, str) and len(value) <= MAX_SCALAR_TEXT
    return value is None or isinstance(value, bool) or is_text or (_is_number(value) and abs(value) < 2**63)


def _is_scalars(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_SCALARS
        and all(_is_name(key) and _is_scalar(part) for key, part in value.items())
    )


_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "integer": ("a whole number", _is_integer),
    "number": ("a number", _is_number),
    "choice": ("one of ", lambda value: isinstance(value, str)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "text": ("a text", lambda value: isinstance(value, str)),
    "name": ("a name of letters, digits and underscores, at most 64", _is_name),
    "scalars": (f"an object of at most {MAX_SCALARS} named plain values", _is_scalars),
    "object": ("an object", lambda value: isinstance(value, dict)),
}


def check_arguments(title: str, arguments: Mapping[str, Argument], given: Any) -> dict[str, Any]:
    """The given arguments with the defaults of those left out.

    Args:
        title: what they are arguments of, for the message.
        arguments: those that there are.
        given: what came, of any type.

    Raises:
        CommandError: 422, with what was expected, what came and what to do.
    """
    if not isinstance(given, dict):
        raise CommandError(422, f"{title}: args must be an object, got {shown(given)}; send {{}} for none")
    for name in given:
        if name not in arguments:
            takes = ", ".join(arguments) or "no arguments"
            raise CommandError(422, f"{title} has no argument {shown(name)}; it takes {takes}")
    checked: dict[str, Any] = {}
    for name, argument in arguments.items():
        if name not in given:
            if argument.default is REQUIRED:
                raise CommandError(422, f"{title} needs {name}: {argument.describe()}; send it in args")
            checked[name] = argument.default
            continue
        if not argument.accepts(given[name]):
            wanted, got = argument.describe(), shown(given[name])
            raise CommandError(422, f"{title}: {name} must be {wanted}, got {got}; correct it and send it again")
        checked[name] = given[name]
    return checked


def parse_json(body: bytes, *, limit_bytes: int = LARGEST_MESSAGE_BYTES) -> dict[str, Any]:
    """The object of a message, its size checked before it is read.

    Raises:
        CommandError: 413 too large; 400 not JSON or no object.
    """
    if len(body) > limit_bytes:
        raise CommandError(413, f"a message has at most {limit_bytes:,} bytes, got {len(body):,}; send less")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CommandError(400, f"the message must be JSON, got {shown(body[:40])} ({error})") from error
    if not isinstance(value, dict):
        raise CommandError(400, f"the message must be a JSON object, got {shown(value)}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
