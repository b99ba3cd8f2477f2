"""A name and its arguments: what is saved of a router, an expert kind or a policy."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from workbench.core.check import did_you_mean
from workbench.core.registry import Registry

__all__ = ["Spec"]


@dataclass(frozen=True)
class Spec:
    """A registered name with keyword arguments for its constructor.

    Args:
        name: public name in a registry.
        args: plain values (numbers, strings, booleans, lists), as saved in a checkpoint.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """A spec from `name` or `name:key=value,key=value`.

        Raises:
            ValueError: an argument without `=`.
        """
        name, _, rest = text.partition(":")
        pairs = [piece.strip() for piece in _pieces(rest) if piece.strip()]
        wrong = [piece for piece in pairs if "=" not in piece]
        if wrong:
            raise ValueError(f"expected name:key=value,key=value; got {wrong[0]!r} in {text!r}")
        return cls(name.strip(), {key.strip(): _literal(value) for key, _, value in (p.partition("=") for p in pairs)})

    @classmethod
    def parse_list(cls, text: str) -> "tuple[Spec, ...]":
        """Specs from `name,name:key=value,key=value,name`: a piece `key=value` belongs to the spec before it.

        Raises:
            ValueError: an argument without `=`, or one before any name.
        """
        grouped: list[str] = []
        for piece in (piece.strip() for piece in _pieces(text)):
            if "=" in piece.partition(":")[0]:
                if not grouped:
                    raise ValueError(f"expected name,name:key=value; got {piece!r} before any name in {text!r}")
                grouped[-1] += f",{piece}"
            elif piece:
                grouped.append(piece)
        return tuple(cls.parse(one) for one in grouped)

    def check(self, registry: Registry) -> type:
        """The class the spec names, once every argument is known to its constructor.

        Raises:
            LookupError: unknown name.
            ValueError: unknown argument; the message lists those it takes.
        """
        cls: type = registry.get(self.name)
        known = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name != "layer"
        ]
        for name in self.args:
            if name not in known:
                raise ValueError(
                    f"{self.name} has no argument {name!r}{did_you_mean(name, known)}. "
                    f"It takes: {', '.join(known) or 'no arguments'}."
                )
        return cls

    def build(self, registry: Registry, *positional: Any, **extra: Any) -> Any:
        """An instance: the spec's arguments, after the caller's positional and extra ones."""
        return self.check(registry)(*positional, **extra, **self.args)

    def to_json(self) -> dict[str, Any]:
        """The spec as plain data."""
        return {"name": self.name, "args": dict(self.args)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Spec":
        """The spec saved by `to_json`."""
        return cls(data["name"], dict(data["args"]))

    def __str__(self) -> str:
        args = ",".join(f"{key}={_written(value)}" for key, value in self.args.items())
        return f"{self.name}:{args}" if args else self.name


def _literal(text: str) -> Any:
    text = text.strip()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return {"true": True, "false": False, "none": None, "inf": inf, "-inf": -inf}.get(text.lower(), text)


def _written(value: Any) -> str:
    if isinstance(value, str):
        # a word stays a word; what would be read back as something else is quoted.
        is_plain = bool(value) and _literal(value) == value and _pieces(f"={value},") == [f"={value}", ""]
        return value if is_plain else repr(value)
    return str(value)


def _pieces(text: str) -> list[str]:
    """The text cut at every comma that is outside brackets and quotes."""
    pieces, depth, quote, is_escaped = [""], 0, "", False
    for mark in text:
        if quote:
            quote = "" if mark == quote and not is_escaped else quote
            is_escaped = mark == "\\" and not is_escaped
        elif mark in "'\"" and pieces[-1].rstrip()[-1:] in tuple("=,:([{"):
            quote = mark
        elif mark == "," and depth <= 0:
            pieces.append("")
            continue
        depth += 0 if quote else (mark in "([{") - (mark in ")]}")
        pieces[-1] += mark
    return pieces
