"""Arguments that a person typed: known, and of the type that their signature says."""

import inspect
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from workbench.core.spec import Spec
from workbench.routers import ROUTERS

__all__ = ["check_router", "check_type"]

_PLAIN = (bool, int, float, str, NoneType)


def check_type(label: str, value: object, annotation: Any) -> None:
    """Nothing, if a plain value is of the annotated type.

    An integer is good where a float is asked, a truth value is no number, and a word of a list may be any
    word: the constructor says which there are. Annotations other than numbers, words, truth values and None
    allow everything.

    Raises:
        ValueError: it is not.
    """
    allowed = _types_of(annotation)
    widened = (*allowed, int) if float in allowed else allowed
    if allowed and (not isinstance(value, widened) or (isinstance(value, bool) and bool not in allowed)):
        names = " or ".join("None" if kind is NoneType else kind.__name__ for kind in allowed)
        raise ValueError(f"{label} must be {names}, got {value!r}")


def check_router(router: Spec) -> Spec:
    """The spec itself, once its name and its arguments are known, and of the right types.

    Raises:
        LookupError: unknown router.
        ValueError: an argument that it does not take, or of another type.
    """
    parameters = inspect.signature(router.check(ROUTERS)).parameters
    for name, value in router.args.items():
        check_type(f"argument {name} of router {router.name}", value, parameters[name].annotation)
    return router


def _types_of(annotation: Any) -> tuple[type, ...]:
    """The plain types of an annotation; empty when it allows anything else."""
    origin = get_origin(annotation)
    if origin is Literal:
        return tuple(dict.fromkeys(type(option) for option in get_args(annotation)))
    if origin in (Union, UnionType):
        parts = [_types_of(part) for part in get_args(annotation)]
        return tuple(dict.fromkeys(kind for part in parts for kind in part)) if all(parts) else ()
    kind = NoneType if annotation is None else annotation
    return (kind,) if kind in _PLAIN else ()
