"""Factors on the weights of auxiliary losses over a training run, written as `shape:first=1,last=0`."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial

from workbench.core.check import did_you_mean, one_of, within
from workbench.core.spec import Spec
from workbench.train.arguments import check_type

__all__ = ["cosine", "linear", "parse_schedule", "step"]


def linear(done: float, *, first: float = 1.0, last: float = 0.0) -> float:
    """Equal steps from `first` to `last`.

    Args:
        done: share of the run that is over [1].
    """
    return first + (last - first) * min(done, 1.0)


def cosine(done: float, *, first: float = 1.0, last: float = 0.0) -> float:
    """Half a cosine from `first` to `last`, slow at both ends.

    Args:
        done: share of the run that is over [1].
    """
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def step(done: float, *, first: float = 1.0, last: float = 0.0, at: float = 0.5) -> float:
    """`first`, and from one moment on `last`.

    Args:
        done: share of the run that is over [1].
        at: the moment, as a share of the run [1].
    """
    return last if done >= at else first


_SHAPES: Mapping[str, Callable[..., float]] = {"linear": linear, "cosine": cosine, "step": step}


def parse_schedule(label: str, text: str) -> Callable[[float], float]:
    """The factor as a function of the share of the run that is over.

    Args:
        label: what the text is for, in messages.

    Raises:
        ValueError: no such shape, an argument that it does not take, or a value that does not fit.
    """
    spec = Spec.parse(text)
    shape = _SHAPES[one_of(f"the shape of {label}", spec.name, _SHAPES)]
    takes = {p.name: p.annotation for p in inspect.signature(shape).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for name, value in spec.args.items():
        if name not in takes:
            hint = did_you_mean(name, takes)
            raise ValueError(f"{label}: {spec.name} has no argument {name!r}{hint}. It takes: {', '.join(takes)}.")
        check_type(f"{label}: {name}", value, takes[name])
        if not 0 <= value < math.inf:
            raise ValueError(f"{label}: {name} must be a finite number of at least 0, got {value}")
    if "at" in spec.args:
        within(f"{label}: at", spec.args["at"], 0, 1, hint="it is a share of num_steps")
    return partial(shape, **spec.args)
