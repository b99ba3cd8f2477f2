"""`trace.moe`: what is in a trace, in the shapes that views and metrics ask for."""

import json
from typing import Any, Literal, final

import numpy as np
import xarray as xr

from workbench.core.context import Phase
from workbench.core.html import facts
from workbench.core.records import CacheEvent, ControlEvent, ExpertKey
from workbench.trace.schema import Trace

__all__ = ["TraceAccessor"]

_GroupName = Literal["run", "routing", "load", "offload", "residency", "control", "placement"]


@final
class TraceAccessor:
    """Views of a trace; nothing is computed that is not in it.

    Args:
        trace: a trace; not changed.
    """

    def __init__(self, trace: Trace):
        self._trace = trace

    def has(self, group: _GroupName) -> bool:
        """Whether the trace holds a group."""
        return group in self._trace.children

    def group(self, name: _GroupName) -> xr.Dataset:
        """One group.

        Raises:
            LookupError: the trace does not hold it.
        """
        if not self.has(name):
            raise LookupError(f"the trace has no /{name}; it holds {', '.join(self._trace.children) or 'nothing'}")
        return self._trace.children[name].to_dataset(inherit=False)

    @property
    def sampling(self) -> str:
        """Which routings were kept, in words."""
        return str(self._trace.children["routing"].attrs.get("sampling", "")) if self.has("routing") else ""

    @property
    def is_synthetic(self) -> bool:
        """Whether the routings were made up instead of measured."""
        return bool(self._trace.attrs.get("synthetic", False))

    @property
    def layers(self) -> tuple[int, ...]:
        """MoE layers, from the first to the last."""
        if self.has("load"):
            return tuple(range(self._trace.children["load"].sizes["layer"]))
        return tuple(np.unique(self.group("routing")["layer"].values).tolist()) if self.has("routing") else ()

    @property
    def routers(self) -> tuple[str, ...]:
        """Public names of the routers, in order of appearance; a swap adds one."""
        return tuple(dict.fromkeys(self.group("routing")["router"].values.tolist())) if self.has("routing") else ()

    @property
    def probe_steps(self) -> tuple[int, ...]:
        """Steps at which the probe text was recorded."""
        if not self.has("routing"):
            return ()
        routing = self.group("routing")
        return tuple(np.unique(routing["step"].values[routing["is_probe"].values]).tolist())

    def load(self, *, phase: Phase | None = None) -> xr.DataArray:
        """Share of assignments per step, layer and expert [1], of one phase or of all."""
        load = self.group("load")["load"]
        return load if phase is None else load.isel(step=np.flatnonzero(load["phase"].values == phase))

    def tokens(
        self,
        layer: int,
        *,
        phase: Phase | None = None,
        step: int | None = None,
        sequence: int | None = None,
        is_probe: bool | None = None,
        iteration: int = 0,
        is_shadow: bool = False,
    ) -> xr.Dataset:
        """The tokens that one layer routed, with expert, weight and kept of each slot.

        The layer's router may change on the way; `router` names the one that each token met.

        Raises:
            LookupError: no such layer, iteration or shadow.
        """
        routing = self.group("routing")
        sites = np.flatnonzero(
            (routing["layer"].values == layer)
            & (routing["iteration"].values == iteration)
            & (routing["is_shadow"].values == is_shadow)
        )
        if not sites.size:
            kind = "shadow router" if is_shadow else "router"
            raise LookupError(f"layer {layer}, iteration {iteration} has no {kind} here; layers: {self.layers}")
        routed = routing["is_routed"].values[sites]
        wanted = routed.any(0)
        for name, value in (("phase", phase), ("step", step), ("sequence", sequence), ("is_probe", is_probe)):
            if value is not None:
                wanted &= routing[name].values == value
        token = np.flatnonzero(wanted)
        site = xr.DataArray(sites[routed.argmax(0)[token]], dims="token")
        picked = routing.isel(site=site, token=xr.DataArray(token, dims="token"))
        return picked.drop_vars("is_routed")

    def probe(self, layer: int, *, step: int | None = None) -> xr.Dataset:
        """The probe text as one layer routed it, at a step or the last time.

        Raises:
            LookupError: the probe was not recorded then.
        """
        steps = self.probe_steps
        if not steps or (step is not None and step not in steps):
            known = ", ".join(map(str, steps)) or "never"
            raise LookupError(f"the probe text was not recorded at step {step}; it was at: {known}")
        return self.tokens(layer, step=steps[-1] if step is None else step, is_probe=True)

    def events(self) -> list[ControlEvent]:
        """What people did to the run."""
        return [ControlEvent(args=json.loads(row.pop("args_json")), **row) for row in _rows(self._trace, "control")]

    def cache_events(self) -> list[CacheEvent]:
        """What the expert cache did."""
        return [
            CacheEvent(key=ExpertKey(row.pop("layer"), row.pop("expert")), **row)
            for row in _rows(self._trace, "offload")
        ]

    def summary(self) -> dict[str, object]:
        """The facts worth a line."""
        rows: dict[str, object] = {
            name: self._trace.attrs[name] for name in ("model", "created_at") if name in self._trace.attrs
        }
        if self.has("run"):
            run = self.group("run")
            rows["training steps"] = f"{run.sizes['step']}, last loss {float(run['loss'][-1]):.4f} nat/token"
        if self.has("load"):
            load = self.group("load")
            rows["layers x experts"] = f"{load.sizes['layer']} x {load.sizes['expert']}"
        if self.has("routing"):
            phases, counts = np.unique(self.group("routing")["phase"].values, return_counts=True)
            rows["tokens with routing"] = ", ".join(f"{n:,} {phase}" for phase, n in zip(phases, counts, strict=True))
            rows["routers"] = ", ".join(self.routers)
        rows |= {f"{name} events": self.group(name).sizes["event"] for name in ("control", "offload") if self.has(name)}
        return rows

    def __repr__(self) -> str:
        return f"TraceAccessor({', '.join(f'{key}: {value}' for key, value in self.summary().items())})"

    def _repr_html_(self) -> str:
        return facts("Synthetic trace" if self.is_synthetic else "Trace", self.summary(), note=self.sampling)


def _rows(trace: Trace, name: str) -> list[dict[str, Any]]:
    if name not in trace.children:
        return []
    columns = {str(key): array.values.tolist() for key, array in trace.children[name].variables.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# xarray leaves this function without types.
xr.register_datatree_accessor("moe")(TraceAccessor)  # type: ignore[no-untyped-call]
