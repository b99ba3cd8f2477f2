"""Errors in one voice: what was expected, what came, what to do."""

import difflib
from collections.abc import Iterable

__all__ = ["at_least", "did_you_mean", "one_of", "within"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def one_of(label: str, value: str, known: Iterable[str]) -> str:
    """The value itself, once it is known to be one of the allowed ones.

    Raises:
        ValueError: it is not; the message lists what is.
    """
    names = list(known)
    if value not in names:
        raise ValueError(f"{label} must be one of {', '.join(names)}; got {value!r}{did_you_mean(str(value), names)}")
    return value


def within(label: str, value: float, low: float, high: float, *, hint: str = "") -> None:
    """Nothing, if `low <= value <= high`.

    Raises:
        ValueError: it is outside; the message carries the hint.
    """
    if not low <= value <= high:
        raise ValueError(f"{label} must be between {low} and {high}, got {value}{'; ' + hint if hint else ''}")


def at_least(label: str, value: float, low: float, *, hint: str = "") -> None:
    """Nothing, if `value >= low`.

    Raises:
        ValueError: it is smaller; the message carries the hint.
    """
    if not value >= low:
        raise ValueError(f"{label} must be at least {low}, got {value}{'; ' + hint if hint else ''}")
