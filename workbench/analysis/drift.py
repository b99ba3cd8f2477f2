"""Routing fluctuation: how much of the probe text is routed elsewhere than before."""

from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int

from workbench.analysis._choices import Choices, choices
from workbench.analysis._labelled import labelled
from workbench.analysis._overlap import Unit, overlap, share
from workbench.core.check import one_of
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["fluctuation", "fluctuation_between"]


def fluctuation(
    trace: Trace,
    *,
    against: Literal["previous", "first"] = "previous",
    unit: Unit = "assignment",
    phase: Phase | None = None,
) -> xr.DataArray:
    """Share of the probe text's routing that changed since it was last recorded, over a whole run.

    Experts are compared by their index, which a swap of the router keeps. Two unrelated routings
    with even load still share K/E of their assignments.

    Args:
        against: compare with the recording before, or with the first of all.
        unit: `assignment` for the share of assignments that changed, against the larger of the two
            sets; `first` and `set` for the share of tokens whose expert of largest weight, or whose
            set of experts, changed.
        phase: of the probe; by default the only one recorded.

    Returns:
        Share [1] over `step`, `layer`, from the second recording on; NaN where a layer chose no
        expert. `since` is the step it is compared with.

    Raises:
        LookupError: the probe text was recorded less than twice.
        ValueError: the text is not the same at all steps, or an unknown option.
    """
    one_of("against", against, ("previous", "first"))
    probe = _probe(trace, phase, unit)
    if len(probe.step) < 2:
        raise LookupError(
            f"fluctuation compares two recordings of the probe text, and it was recorded at {_list(probe.step)}; "
            "train on, or record it more often with Sampling(probe_every=...)"
        )
    rows = range(1, len(probe.step))
    since = [row - 1 if against == "previous" else 0 for row in rows]
    values = np.stack([_changed(probe, old, new, unit) for old, new in zip(since, rows, strict=True)])
    result = _result(probe, values, ("step", "layer"), unit)
    return result.assign_coords(step=probe.step[1:], since=("step", probe.step[since]))


def fluctuation_between(
    trace: Trace, before: int, after: int, *, unit: Unit = "assignment", phase: Phase | None = None
) -> xr.DataArray:
    """Share of the probe text's routing that changed between two recorded steps, per layer.

    Args:
        before: a step at which the probe text was recorded.
        after: another one.
        unit: as for `fluctuation`.
        phase: of the probe; by default the only one recorded.

    Returns:
        Share [1] over `layer`; 0 for a step with itself, NaN where a layer chose no expert.

    Raises:
        LookupError: the probe text was not recorded at one of the steps.
        ValueError: the text is not the same, or an unknown option.
    """
    probe = _probe(trace, phase, unit)
    known = probe.step.tolist()
    for step in (before, after):
        if step not in known:
            raise LookupError(f"the probe text was not recorded at step {step}; it was at {_list(probe.step)}")
    result = _result(probe, _changed(probe, known.index(before), known.index(after), unit), ("layer",), unit)
    return result.assign_coords(step=after, since=before)


class _Probe(NamedTuple):
    """The probe text at every step it was recorded."""

    found: Choices
    step: Int[np.ndarray, "steps"]
    rows: list[np.ndarray]
    """Its tokens at each step, in order of the text."""


def _probe(trace: Trace, phase: Phase | None, unit: Unit) -> _Probe:
    found = choices(trace, phase=phase, is_probe=True)
    found = found.first() if unit == "first" else found
    at, sequence, position = (found.token(name) for name in ("step", "sequence", "position"))
    # of a text that was recorded twice at one step, as when a run is resumed there, the last counts.
    order = np.lexsort((np.arange(at.size), position, sequence, at))
    place = np.stack([at, sequence, position])[:, order]
    order = order[np.append((place[:, 1:] != place[:, :-1]).any(0), True)]
    steps, start = np.unique(at[order], return_index=True)
    return _Probe(found, steps.astype(np.int64), np.split(order, start[1:]))


def _changed(probe: _Probe, old: int, new: int, unit: Unit) -> np.ndarray:
    one, two = probe.rows[old], probe.rows[new]
    for name in ("sequence", "position", "token_id"):
        values = probe.found.token(name)
        if one.size != two.size or (values[one] != values[two]).any():
            raise ValueError(
                f"the probe text must be the same at every step, and at step {probe.step[new]} it is not that of "
                f"step {probe.step[old]} ({one.size} and {two.size} tokens); "
                "take the steps of one text: only(trace, steps=range(...))"
            )
    expert = probe.found.expert
    shared, most = overlap(expert[:, one], expert[:, two], unit=unit)
    # a layer that routed one of the two only has nothing to compare.
    known = probe.found.is_routed[:, one] & probe.found.is_routed[:, two]
    return 1 - share((shared * known).sum(1), (most * known).sum(1))


def _result(probe: _Probe, values: np.ndarray, dims: tuple[str, ...], unit: Unit) -> xr.DataArray:
    of = {"assignment": "assignments that changed", "first": "tokens whose first expert changed"}
    return labelled(
        values,
        dims,
        name="fluctuation",
        long_name=f"share of {of.get(unit, 'tokens whose set of experts changed')}",
        units="1",
        over=f"{probe.found.over}; probe text of {probe.rows[-1].size} tokens at {_list(probe.step)}",
        coords=probe.found.coords("layer"),
    )


def _list(steps: Int[np.ndarray, "steps"]) -> str:
    shown = ", ".join(map(str, steps[:5].tolist()))
    return f"step {shown}" if len(steps) == 1 else f"steps {shown}{', ...' if len(steps) > 5 else ''}"
