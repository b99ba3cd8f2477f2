"""The options of `OffloadConfig` as text: what there are, and a configuration from what a person typed."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from workbench.core.check import did_you_mean
from workbench.core.spec import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.precision.levels import usage_of
from workbench.offload.replay.recorded import requests_of
from workbench.trace.files import open_trace

__all__ = ["config_of_text", "option_rows"]


def config_of_text(given: Mapping[str, str]) -> OffloadConfig:
    """A configuration from texts by the name of the option.

    What may be None is so as `none`; a policy or a format has its arguments as `lfu:half_life=64`; `usage` is counted
    in a trace, whose path is given, and `calibration` is the path of a text.

    Raises:
        ValueError: no such option, or a text that is none of its values; the message names it.
        OSError: a trace that cannot be read.
    """
    types = get_type_hints(OffloadConfig)
    unknown = [name for name in given if name not in types]
    if unknown:
        hint = did_you_mean(unknown[0], types)
        raise ValueError(f"there is no offload option {unknown[0]!r}{hint}; the options: {', '.join(types)}")
    return OffloadConfig(**{name: _value(name, types[name], text.strip()) for name, text in given.items()})


def option_rows() -> list[dict[str, Any]]:
    """Of every option its name, what it is for and its default, as texts."""
    said = _documented()
    return [{"name": one.name, "does": said[one.name], "default": _default(one)} for one in fields(OffloadConfig)]


def _value(name: str, wanted: Any, text: str) -> Any:
    kinds = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    if NoneType in kinds and text.lower() == "none":
        return None
    # a budget may be a number of bytes as well, which its text says just so.
    kind = str if str in kinds else next(kind for kind in kinds if kind is not NoneType)
    try:
        return _READERS[kind](text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ValueError(f"expected true or false, got {text!r}")
    return words[text.lower()]


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f"expected a whole number, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None


def _usage(text: str) -> tuple[float, ...]:
    return usage_of(requests_of(open_trace(Path(text))))


_READERS: Mapping[Any, Callable[[str], Any]] = {
    str: str,
    int: _whole,
    float: _number,
    bool: _boolean,
    Spec: Spec.parse,
    tuple[float, ...]: _usage,
}
"""By the type of the field."""


def _documented() -> dict[str, str]:
    """What the docstring says of every option, on one line each."""
    listed = (inspect.getdoc(OffloadConfig) or "").partition("Args:\n")[2]
    entries = re.findall(r"(?m)^    (\w+): (.+(?:\n {5,}.+)*)", listed)
    # in text nothing is `none`.
    return {name: " ".join(text.split()).removesuffix(".").replace("None", "none") for name, text in entries}


def _default(one: Field[Any]) -> str:
    value = one.default if one.default_factory is MISSING else one.default_factory()
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
