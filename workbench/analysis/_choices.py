"""The decisions of a trace as plain arrays: one row per layer and token, whatever router made them."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from workbench.analysis._labelled import EXPERT, LAYER, group_of, one_phase
from workbench.core.context import Phase
from workbench.trace.schema import Trace

TokenFact = Literal["step", "sequence", "position", "token_id", "domain", "piece"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choices:
    """What the layers chose for some tokens of one phase.

    Args:
        expert: chosen expert, -1 where the slot is empty or the layer did not route the token.
        weight: factor of the expert's output, 0 if empty.
        is_routed: the layer has decided about the token.
        site: place in the trace of the router that a token met.
        row: place of each token in the trace.
        layer: index among the MoE layers.
        num_experts: of each layer; the largest number where routers were swapped.
        routing: the group they come from.
        phase: what the model was doing.
        about: which tokens they are, in words.
    """

    expert: Int[np.ndarray, "L T K"]
    weight: Float[np.ndarray, "L T K"]
    is_routed: Bool[np.ndarray, "L T"]
    site: Int[np.ndarray, "L T"]
    row: Int[np.ndarray, "T"]
    layer: Int[np.ndarray, "L"]
    num_experts: Int[np.ndarray, "L"]
    routing: xr.Dataset
    phase: Phase
    about: str

    @property
    def width(self) -> int:
        """Experts of the widest layer, extras included."""
        return int(self.num_experts.max(initial=0))

    @property
    def num_tokens(self) -> int:
        """Tokens that some layer routed."""
        return self.row.size

    @property
    def over(self) -> str:
        """What a measure of these choices is taken over."""
        named = self.routing["router"].values[np.unique(self.site[self.is_routed])].tolist()
        routers = ", ".join(dict.fromkeys(named)) or "none"
        return f"{self.num_tokens} {self.about} tokens, {self.layer.size} layers; routers: {routers}"

    @cached_property
    def exists(self) -> Bool[np.ndarray, "L Z"]:
        """True for the experts that a layer has."""
        return np.arange(self.width) < self.num_experts[:, None]

    @cached_property
    def distinct(self) -> Int[np.ndarray, "L T K"]:
        """Experts of each token in order of index, one that was named twice only once."""
        expert = np.sort(self.expert, axis=-1)
        expert[..., 1:][expert[..., 1:] == expert[..., :-1]] = -1
        return expert

    def token(self, name: TokenFact) -> np.ndarray:
        """One fact about every token."""
        return np.asarray(self.routing[name].values[self.row])

    def coords(self, *dims: str) -> dict[str, Any]:
        """Coordinates of the dimensions `layer`, `token`, or of one that counts experts."""
        found: dict[str, Any] = {}
        for dim in dims:
            if dim == "layer":
                found["layer"] = xr.Variable("layer", self.layer, {"long_name": LAYER})
                found["num_experts"] = xr.Variable("layer", self.num_experts, {"long_name": "experts, extras included"})
            elif dim == "token":
                found |= {name: ("token", self.token(name)) for name in get_args(TokenFact)}
            else:
                found[dim] = xr.Variable(dim, np.arange(self.width), {"long_name": EXPERT})
        return found

    def first(self) -> "Choices":
        """Only the expert with the largest weight of each token; the lower slot wins a tie."""
        size = np.where(self.expert >= 0, np.abs(self.weight), -1.0)
        if not size.shape[-1]:
            return self
        best = size.argmax(-1)[..., None]
        return replace(
            self,
            expert=np.take_along_axis(self.expert, best, -1),
            weight=np.take_along_axis(self.weight, best, -1),
        )

    def at(self, tokens: np.ndarray) -> "Choices":
        """Some of the tokens, by index or mask."""
        arrays = {name: getattr(self, name)[:, tokens] for name in ("expert", "weight", "is_routed", "site")}
        return replace(self, row=self.row[tokens], **arrays)

    def at_layers(self, layers: np.ndarray | slice) -> "Choices":
        """Some of the layers, by index, mask or slice."""
        names = ("expert", "weight", "is_routed", "site", "layer", "num_experts")
        return replace(self, **{name: getattr(self, name)[layers] for name in names})


def choices(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False, is_shadow: bool = False) -> Choices:
    """The decisions about the tokens of one phase.

    Args:
        phase: by default the only one recorded.
        is_probe: take the fixed probe text, and only it.
        is_shadow: of the router that watches, not of the one that acts.

    Raises:
        LookupError: no routing, no such tokens, or no shadow router.
        ValueError: several phases or iterations, and none was asked for.
    """
    routing = group_of(trace, "routing", do="record forward passes with their routing kept")
    sites = _sites(routing, is_shadow)
    is_routed = routing["is_routed"].values
    among = np.flatnonzero((routing["is_probe"].values == is_probe) & is_routed[sites].any(0))
    what = "tokens of the probe text" if is_probe else "tokens with routing"
    what += " that a shadow router saw" if is_shadow else ""
    phase = one_phase(routing["phase"].values[among], phase, what=what)
    row = among[routing["phase"].values[among] == phase]
    layers = np.unique(routing["layer"].values[sites])
    own = [sites[routing["layer"].values[sites] == layer] for layer in layers]
    routed = np.stack([is_routed[places][:, row].any(0) for places in own])
    site = np.stack([places[is_routed[places][:, row].argmax(0)] for places in own])
    filled = routing["num_experts"].values.astype(np.int64)
    about = f"{'shadowed ' if is_shadow else ''}{phase}{' probe' if is_probe else ''}"
    return Choices(
        expert=np.where(routed[..., None], routing["expert"].values[site, row], -1).astype(np.int64),
        weight=np.where(routed[..., None], routing["weight"].values[site, row], 0).astype(np.float64),
        is_routed=routed,
        site=site,
        row=row,
        layer=layers.astype(np.int64),
        num_experts=np.where(routed, filled[site], 0).max(1),
        routing=routing,
        phase=phase,
        about=about,
    )


def _sites(routing: xr.Dataset, is_shadow: bool) -> Int[np.ndarray, "sites"]:
    """Sites of the acting or of the watching routers, of the one iteration there is."""
    sites = np.flatnonzero(routing["is_shadow"].values == is_shadow)
    if not sites.size:
        kind = "shadow router" if is_shadow else "acting router"
        raise LookupError(f"the trace has no {kind}; record a run that has one")
    iterations = np.unique(routing["iteration"].values[sites]).tolist()
    if len(iterations) > 1:
        raise ValueError(
            f"the layers ran {len(iterations)} times, iterations {iterations}, which are never mixed; "
            "choose one: only(trace, iteration=0)"
        )
    return sites
