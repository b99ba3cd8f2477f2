"""What banning an expert does to the loss, beside banning others, for the view `expert_effect`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from workbench.payloads.container import encode

__all__ = ["control_interval", "expert_effect_payload"]

_SOURCE = "Measured on the probe text: the loss with one expert banned, less the loss with all of them."
_MEANING = (
    "The controls are experts of any layer, drawn at random among those of similar load, each banned by itself. "
    "The interval is the 95 % confidence interval of their mean change (Student's t)."
)


def control_interval(changes: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the controls and the confidence interval of that mean; NaN where too few are known."""
    known = np.array([change for change in changes if np.isfinite(change)], np.float64)
    if known.size == 0:
        return (float("nan"),) * 3
    mean = float(known.mean())
    if known.size < 2:
        return mean, float("nan"), float("nan")
    half = float(stdtrit(known.size - 1, (1 + level) / 2) * known.std(ddof=1) / np.sqrt(known.size))
    return mean, mean - half, mean + half


def expert_effect_payload(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Causal effects that were measured, newest last.

    Args:
        rows: of each measurement `layer`, `expert`, `load` (share of the layer's assignments [1]), `loss` and
            `base_loss` with and without the ban [nat/token], their difference `change`, the same of the controls as
            `controls` with `control_experts` and `control_layers` (the row's own layer where they are left out), and
            the `step`.
    """
    widest = max((len(row["controls"]) for row in rows), default=0)
    controls = np.full((len(rows), widest), np.nan)
    experts, layers = (np.full((len(rows), widest), -1, np.int32) for _ in range(2))
    for i, row in enumerate(rows):
        used = slice(len(row["controls"]))
        controls[i, used], experts[i, used] = row["controls"], row["control_experts"]
        layers[i, used] = row.get("control_layers", row["layer"])
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([row[name] for row in rows], dtype)
        for name, dtype in (
            ("layer", np.int32),
            ("expert", np.int32),
            ("step", np.int32),
            ("load", np.float64),
            ("loss", np.float64),
            ("base_loss", np.float64),
            ("change", np.float64),
        )
    }
    arrays |= {"controls": controls, "control_experts": experts, "control_layers": layers}
    arrays["interval"] = np.array([control_interval(row["controls"]) for row in rows]).reshape(len(rows), 3)
    return encode("expert_effect", {"source": _SOURCE, "statements": [_MEANING], "unit": "nats per token"}, arrays)
