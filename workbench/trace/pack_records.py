"""The `/run`, `/control`, `/offload` and `/residency` groups from the records that fill them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from workbench.core.records import CacheEvent, ControlEvent, Residency, StepReport
from workbench.trace.blocks import Columns
from workbench.trace.schema import GROUPS, TEXT, safe_text

__all__ = ["control_columns", "offload_columns", "residency_columns", "run_columns"]


def run_columns(reports: Sequence[StepReport]) -> Columns:
    """One row per report; empty without reports."""
    if not reports:
        return {}
    columns = _columns(
        "run",
        {
            "step": [report.step for report in reports],
            "loss": [report.loss for report in reports],
            "lr": [report.learning_rate for report in reports],
            "grad_norm": [report.grad_norm for report in reports],
            "tokens": [report.tokens for report in reports],
            "tokens_per_second": [report.tokens_per_second for report in reports],
            "wall_seconds": [report.wall_seconds for report in reports],
        },
    )
    evals, losses = [r.bits_per_byte for r in reports], [r.aux_losses for r in reports]
    weights = [r.aux_weights for r in reports]
    domains, aux = _keys(evals), _keys([*losses, *weights])
    if domains:
        columns |= {"domain": _text(domains), "eval_loss": _grid(evals, domains)}
    if aux:
        columns |= {"aux": _text(aux), "aux_loss": _grid(losses, aux), "aux_weight": _grid(weights, aux)}
    return columns


def control_columns(events: Sequence[ControlEvent]) -> Columns:
    """One row per command; empty without commands."""
    if not events:
        return {}
    return _columns(
        "control",
        {
            "time_ns": [event.time_ns for event in events],
            "op": [event.op for event in events],
            "args_json": [json.dumps(dict(event.args)) for event in events],
            "actor": [event.actor for event in events],
            "accepted_step": [event.accepted_step for event in events],
            "applied_step": [event.applied_step for event in events],
            "result": [event.result for event in events],
        },
    )


def offload_columns(events: Sequence[CacheEvent]) -> Columns:
    """One row per cache event; empty without events."""
    if not events:
        return {}
    return _columns(
        "offload",
        {
            "time_ns": [event.time_ns for event in events],
            "step": [event.step for event in events],
            "token": [event.token for event in events],
            "layer": [event.key.layer for event in events],
            "expert": [event.key.expert for event in events],
            "kind": [event.kind for event in events],
            "bytes": [event.bytes for event in events],
            "stall_seconds": [event.stall_seconds for event in events],
        },
    )


def residency_columns(samples: Sequence[Residency]) -> Columns:
    """One sample per record; empty without records."""
    if not samples:
        return {}
    tier = np.stack([sample.tier for sample in samples])
    numbers = {
        "step": [sample.step for sample in samples],
        "layer": range(tier.shape[1]),
        "expert": range(tier.shape[2]),
    }
    return {**_columns("residency", numbers), "tier": tier}


def _columns(group: str, values: Mapping[str, Sequence[object]]) -> Columns:
    variables = GROUPS[group].variables
    return {
        name: _text(column) if variables[name].dtype == "str" else np.array(column, dtype=variables[name].numpy_dtype)
        for name, column in values.items()
    }


def _text(values: Sequence[object]) -> npt.NDArray[Any]:
    return np.array([safe_text(str(value)) for value in values], dtype=TEXT)


def _keys(values: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in values for key in mapping))


def _grid(values: Sequence[Mapping[str, float]], labels: Sequence[str]) -> Float[np.ndarray, "rows labels"]:
    return np.array([[row.get(label, np.nan) for label in labels] for row in values], dtype=np.float64)
