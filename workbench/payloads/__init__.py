"""A trace as the bytes that a view reads, one file per view; the numbers are those of the trace."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "expert_effect_payload",
    "expert_flow_payload",
    "expert_load_payload",
    "generation_payload",
    "loss_curves_payload",
    "offload_timeline_payload",
    "residency_payload",
    "router_swap_payload",
    "shadow_router_payload",
    "token_strip_payload",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "expert_effect_payload": "workbench.payloads.expert_effect",
        "expert_flow_payload": "workbench.payloads.expert_flow",
        "expert_load_payload": "workbench.payloads.expert_load",
        "generation_payload": "workbench.payloads.generation",
        "loss_curves_payload": "workbench.payloads.loss_curves",
        "offload_timeline_payload": "workbench.payloads.offload_timeline",
        "residency_payload": "workbench.payloads.residency",
        "router_swap_payload": "workbench.payloads.router_swap",
        "shadow_router_payload": "workbench.payloads.shadow_router",
        "token_strip_payload": "workbench.payloads.token_strip",
    },
)
