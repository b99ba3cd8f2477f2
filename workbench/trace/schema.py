"""The schema of a trace, as data: groups, variables, dimensions, dtypes, units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

__all__ = [
    "GROUPS",
    "KINDS",
    "PHASES",
    "SCHEMA",
    "TEXT",
    "TIERS",
    "Group",
    "Trace",
    "Variable",
    "empty_group",
    "empty_trace",
    "safe_text",
]

Trace = xr.DataTree

SCHEMA = "moe-workbench.trace/1"
PHASES = ("train", "eval", "prefill", "decode")
KINDS = ("hit", "miss", "prefetch", "prefetch_late", "evict", "host_compute")
TIERS = ("device", "host", "disk")
TEXT: np.dtype[Any] = np.dtypes.StringDType()


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable of a group.

    Args:
        dims: names of its dimensions.
        dtype: `str` for text, else a numpy name.
        text: what it holds, in a few words.
        units: of a measured variable, `1` for a pure number; empty for labels and indices.
        is_required: a group without it is not valid.
        is_coordinate: describes a dimension instead of being measured.
        fill: what stands where nothing was recorded; None takes the default of the dtype.
        among: the words allowed in a text variable.
    """

    dims: tuple[str, ...]
    dtype: str
    text: str
    units: str = ""
    is_required: bool = True
    is_coordinate: bool = False
    fill: Any = None
    among: tuple[str, ...] = ()

    @property
    def filler(self) -> Any:
        """What stands where nothing was recorded: NaN, -1, False or the empty text."""
        if self.fill is not None:
            return self.fill
        return {"f": np.nan, "i": -1, "b": False, "T": ""}[self.numpy_dtype.kind]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of its array; text has variable width."""
        return TEXT if self.dtype == "str" else np.dtype(self.dtype)

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes the variable carries in a trace."""
        return {"units": self.units, "description": self.text} if self.units else {"description": self.text}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group of a trace.

    Args:
        append: the dimension that grows with time; None for a group that is written once.
        clock: the variable that says to which step a row belongs.
        needs: attributes that the group must carry.
        labels: dimension -> the coordinates that together identify a place on it.
        ordinals: dimensions that count from 0.
        variables: by name.
    """

    append: str | None
    clock: str | None = None
    needs: tuple[str, ...] = ()
    variables: Mapping[str, Variable]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ordinals: tuple[str, ...] = ()

    @property
    def dims(self) -> tuple[str, ...]:
        """Every dimension, in order of first use."""
        return tuple(dict.fromkeys(dim for variable in self.variables.values() for dim in variable.dims))


def _on(dim: str, dtype: str, text: str) -> Variable:
    return Variable(dims=(dim,), dtype=dtype, text=text, is_coordinate=True)


def _is(*dims: str, dtype: str = "float32", text: str, units: str = "", **more: Any) -> Variable:
    return Variable(dims=dims, dtype=dtype, text=text, units=units, **more)


_RUN = Group(
    append="step",
    clock="step",
    labels={"domain": ("domain",), "aux": ("aux",)},
    variables={
        "step": _on("step", "int64", "optimiser steps done"),
        "domain": Variable(dims=("domain",), dtype="str", text="of the text", is_coordinate=True, is_required=False),
        "aux": Variable(dims=("aux",), dtype="str", text="auxiliary loss", is_coordinate=True, is_required=False),
        "loss": _is("step", dtype="float64", text="mean cross-entropy of the training tokens", units="nat/token"),
        "lr": _is("step", dtype="float64", text="learning rate", units="1"),
        "grad_norm": _is("step", dtype="float64", text="gradient norm before clipping", units="1"),
        "tokens": _is("step", dtype="int64", text="training tokens seen so far", units="token"),
        "tokens_per_second": _is("step", dtype="float64", text="training speed of the step", units="token/s"),
        "wall_seconds": _is("step", dtype="float64", text="since the run began or was resumed", units="s"),
        "eval_loss": _is("step", "domain", dtype="float64", text="held-out loss", units="bit/byte", is_required=False),
        "aux_loss": _is(
            "step", "aux", dtype="float64", text="mean over layers, unweighted", units="1", is_required=False
        ),
        "aux_weight": _is("step", "aux", dtype="float64", text="weight of the loss", units="1", is_required=False),
    },
)

_SITE = ("layer", "iteration", "module", "router", "is_shadow", "num_experts")

_ROUTING = Group(
    append="token",
    clock="step",
    needs=("sampling",),
    labels={"site": _SITE},
    ordinals=("slot", "expert_id"),
    variables={
        "layer": _on("site", "int16", "index among the MoE layers"),
        "iteration": _on("site", "int16", "pass through the same layer"),
        "module": _on("site", "str", "dotted name of the layer in the model"),
        "router": _on("site", "str", "public name of the router"),
        "is_shadow": _on("site", "bool", "the router watches without acting"),
        "num_experts": _on("site", "int16", "experts that could be chosen, extras included"),
        "step": _on("token", "int32", "optimiser steps done, or forward pass where nothing trains"),
        "phase": Variable(
            dims=("token",), dtype="str", text="what the model was doing", is_coordinate=True, among=PHASES
        ),
        "sequence": _on("token", "int32", "row of the batch; in prefill and decode, number of the generation"),
        "position": _on("token", "int32", "place in its sequence, padding not counted"),
        "token_id": _on("token", "int32", "vocabulary index"),
        "domain": _on("token", "str", "domain of the text, empty where unknown"),
        "piece": _on("token", "str", "the token as text, empty where no tokenizer was given"),
        "is_probe": _on("token", "bool", "belongs to the fixed probe text"),
        "expert": _is("site", "token", "slot", dtype="int16", text="chosen expert, -1 where the slot is empty"),
        "weight": _is("site", "token", "slot", text="factor of the expert's output, 0 if empty", units="1", fill=0.0),
        "kept": _is("site", "token", "slot", dtype="bool", text="False if empty or lost to capacity"),
        "is_routed": _is("site", "token", dtype="bool", text="this site routed this token"),
        "prob": _is("site", "token", "expert_id", text="normalised score", units="1", is_required=False),
        "ahead": _is(
            "site", "token", "slot", dtype="int16", text="a guess of the next layer's experts", is_required=False
        ),
    },
)

_LOAD = Group(
    append="step",
    clock="step",
    labels={"aux": ("aux",)},
    ordinals=("layer", "expert"),
    variables={
        "step": _on("step", "int64", "optimiser steps done, or forward pass where nothing trains"),
        "phase": Variable(
            dims=("step",), dtype="str", text="what the model was doing", is_coordinate=True, among=PHASES
        ),
        "layer": _on("layer", "int64", "index among the MoE layers"),
        "expert": _on("expert", "int64", "index within the layer, extras after the model's own"),
        "aux": Variable(dims=("aux",), dtype="str", text="auxiliary loss", is_coordinate=True, is_required=False),
        "load": _is("step", "layer", "expert", text="share of the assignments asked for", units="1"),
        "prob_mean": _is("step", "layer", "expert", text="mean normalised score", units="1"),
        "entropy": _is("step", "layer", text="mean entropy of a token's scores", units="nat"),
        "cv": _is("step", "layer", text="standard deviation of the load over its mean", units="1"),
        "dead_fraction": _is("step", "layer", text="share of experts that nothing asked for", units="1"),
        "dropped_fraction": _is("step", "layer", text="share of assignments lost to capacity", units="1"),
        "tokens": _is("step", dtype="int64", text="tokens behind this row", units="token", fill=0),
        "aux_loss": _is(
            "step", "layer", "aux", text="auxiliary loss of the layer, unweighted", units="1", is_required=False
        ),
    },
)

_OFFLOAD = Group(
    append="event",
    clock="step",
    variables={
        "time_ns": _is("event", dtype="int64", text="when, since the epoch or of the simulated clock", units="ns"),
        "step": _is("event", dtype="int64", text="step of the run"),
        "token": _is("event", dtype="int64", text="index of the token within the step, -1 for none"),
        "layer": _is("event", dtype="int16", text="index among the MoE layers"),
        "expert": _is("event", dtype="int16", text="index within the layer"),
        "kind": _is("event", dtype="str", text="what happened", among=KINDS),
        "bytes": _is("event", dtype="int64", text="moved", units="B"),
        "stall_seconds": _is("event", dtype="float64", text="time the computation waited", units="s"),
    },
)

_RESIDENCY = Group(
    append="sample",
    clock="step",
    ordinals=("layer", "expert"),
    variables={
        "step": _on("sample", "int64", "step of the run"),
        "layer": _on("layer", "int64", "index among the MoE layers"),
        "expert": _on("expert", "int64", "index within the layer"),
        "tier": _is("sample", "layer", "expert", dtype="int8", text="0 device, 1 host, 2 disk, -1 unknown"),
    },
)

_CONTROL = Group(
    append="event",
    clock="applied_step",
    variables={
        "time_ns": _is("event", dtype="int64", text="when it was accepted, since the epoch", units="ns"),
        "op": _is("event", dtype="str", text="name of the command"),
        "args_json": _is("event", dtype="str", text="its arguments"),
        "actor": _is("event", dtype="str", text="who asked"),
        "accepted_step": _is("event", dtype="int64", text="step at which it was accepted"),
        "applied_step": _is("event", dtype="int64", text="first step that it changed"),
        "result": _is("event", dtype="str", text="what happened, in words"),
    },
)

_PLACEMENT = Group(
    append=None,
    ordinals=("layer", "expert"),
    variables={
        "layer": _on("layer", "int64", "index among the MoE layers"),
        "expert": _on("expert", "int64", "index within the layer"),
        "rank": _is("layer", "expert", dtype="int32", text="rank that owns the expert"),
    },
)

_COMPARE = Group(
    append=None,
    labels={dim: (dim,) for dim in ("router", "other", "seed", "domain", "measure")},
    variables={
        "router": _on("router", "str", "router with its arguments"),
        "other": _on("other", "str", "the same routers again, to pair them"),
        "seed": _on("seed", "int64", "of weights, data order and noise"),
        "domain": _on("domain", "str", "held-out domain"),
        "measure": _on("measure", "str", "what was measured"),
        "bits_per_byte": _is("router", "seed", "domain", dtype="float64", text="held-out loss", units="bit/byte"),
        "value": _is("router", "seed", "measure", dtype="float64", text="each measure", units="as in unit"),
        "unit": _is("measure", dtype="str", text="unit of the measure"),
        "p_value": _is("router", "other", dtype="float64", text="paired t-test over seeds of the mean loss", units="1"),
        "sees_future": _is("router", dtype="bool", text="decides with later tokens in view, so its loss is too good"),
        "failed": _is("router", dtype="str", text="why a run did not come to its end"),
    },
)

GROUPS: Mapping[str, Group] = {
    "run": _RUN,
    "routing": _ROUTING,
    "load": _LOAD,
    "offload": _OFFLOAD,
    "residency": _RESIDENCY,
    "control": _CONTROL,
    "placement": _PLACEMENT,
    "compare": _COMPARE,
}


def empty_group(name: str) -> xr.Dataset:
    """A valid group that holds nothing, optional variables left out.

    Raises:
        LookupError: no such group.
    """
    if name not in GROUPS:
        raise LookupError(f"the trace has no group {name!r}; its groups: {', '.join(GROUPS)}")
    wanted = {key: v for key, v in GROUPS[name].variables.items() if v.is_required}
    arrays = {
        key: xr.Variable(v.dims, np.empty((0,) * len(v.dims), v.numpy_dtype), v.attrs) for key, v in wanted.items()
    }
    coords = {key: array for key, array in arrays.items() if wanted[key].is_coordinate}
    attrs = dict.fromkeys(GROUPS[name].needs, "nothing recorded")
    return xr.Dataset({key: array for key, array in arrays.items() if key not in coords}, coords, attrs)


def empty_trace() -> Trace:
    """A trace that holds no group yet, only the schema's name."""
    return xr.DataTree(xr.Dataset(attrs={"schema": SCHEMA}))


def safe_text(text: str) -> str:
    """The text as every format keeps it: no NUL, which ends a text in some, and nothing outside UTF-8."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")
