"""A payload of every view, made by hand where a trace alone does not hold what the view shows."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
import xarray as xr

from workbench.analysis import diff_routings
from workbench.analysis.routing_diff import RoutingDiff
from workbench.core import SparseRouting
from workbench.payloads import (
    expert_effect_payload,
    expert_flow_payload,
    expert_load_payload,
    generation_payload,
    loss_curves_payload,
    offload_timeline_payload,
    residency_payload,
    router_swap_payload,
    shadow_router_payload,
    token_strip_payload,
)

SETTINGS = {"max_new_tokens": 64, "temperature": 0.8, "top_p": 0.95, "seed": 0}


def swap_diff(num_tokens: int, *, layers: int = 4, experts: int = 8, top_k: int = 2, share: float = 0.3) -> RoutingDiff:
    """A text under two routers of which the second sends about a share of the tokens elsewhere."""
    rng = np.random.default_rng(4)
    before, after = [], []
    for _ in range(layers):
        old = rng.random((num_tokens, experts)).argsort(-1)[:, :top_k]
        new = np.where(
            rng.random((num_tokens, 1)) < share, rng.random((num_tokens, experts)).argsort(-1)[:, :top_k], old
        )
        weight = torch.from_numpy(-np.sort(-rng.dirichlet([2.0] * top_k, num_tokens), axis=-1))
        for found, expert in ((before, old), (after, new)):
            found.append(SparseRouting.from_topk(torch.from_numpy(expert), weight, num_experts=experts))
    return diff_routings(before, after).with_losses(2.3154, 2.5801)


def routed(expert: list[list[int]], num_experts: int = 4) -> SparseRouting:
    """Decisions by hand, -1 for an empty slot, weights alike."""
    chosen = torch.tensor(expert)
    return SparseRouting.from_topk(chosen, (chosen >= 0) / chosen.shape[1], num_experts=num_experts)


def swap_payload(samples: ModuleType) -> bytes:
    pieces = samples.pieces_of(samples.TEXT)
    return router_swap_payload(
        swap_diff(len(pieces)), pieces=pieces, before="top_k", after="switch", step=120, stall_seconds=0.043
    )


def effect_rows(count: int = 2) -> list[dict]:
    rng = np.random.default_rng(5)
    rows = []
    for i in range(count):
        controls = rng.normal(0.05, 0.03, 8).round(4).tolist()
        rows.append(
            {
                "layer": i % 4,
                "expert": 3 - i % 4,
                "load": 0.12,
                "loss": 2.31 + 0.42 / (i + 1),
                "base_loss": 2.31,
                "change": 0.42 / (i + 1),
                "controls": controls,
                "control_experts": [0, 1, 2, 4, 5, 6, 7, 8],
                "step": 120 + i,
            }
        )
    return rows


def tree(**groups: xr.Dataset) -> xr.DataTree:
    return xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})


FROM_TRACE: dict[str, Callable[[xr.DataTree], bytes]] = {
    "expert_flow": expert_flow_payload,
    "expert_load": expert_load_payload,
    "loss_curves": loss_curves_payload,
    "offload_timeline": offload_timeline_payload,
    "residency": residency_payload,
    "shadow_router": shadow_router_payload,
    "token_strip": token_strip_payload,
}


def sample_payload(view: str, samples: ModuleType) -> bytes:
    """A payload with something to see."""
    special: dict[str, Callable[[], bytes]] = {
        "expert_effect": lambda: expert_effect_payload(effect_rows()),
        "generation": lambda: generation_payload(
            samples.whole_trace(), prompt="The ship ", text="sailed at dawn", status="writing", settings=SETTINGS
        ),
        "offload_timeline": lambda: offload_timeline_payload(tree(offload=samples.offload_group())),
        "residency": lambda: residency_payload(tree(residency=samples.residency_group())),
        "router_swap": lambda: swap_payload(samples),
        "shadow_router": lambda: shadow_router_payload(tree(routing=samples.with_shadow(samples.routing_group()))),
    }
    return special[view]() if view in special else FROM_TRACE[view](samples.whole_trace())
