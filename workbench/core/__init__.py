"""The words that every floor shares: routing, router, experts, records, registry, spec."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "Assignments",
    "Batch",
    "Card",
    "Experts",
    "MergedRouting",
    "Output",
    "Registry",
    "RouteContext",
    "Router",
    "Routing",
    "RowExperts",
    "Site",
    "SlotRouting",
    "SparseRouting",
    "Spec",
    "StepReport",
    "Tally",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Assignments": "workbench.core.routing",
        "Batch": "workbench.core.records",
        "Card": "workbench.core.router",
        "Experts": "workbench.core.experts",
        "MergedRouting": "workbench.core.mixture",
        "Output": "workbench.core.records",
        "Registry": "workbench.core.registry",
        "RouteContext": "workbench.core.context",
        "Router": "workbench.core.router",
        "Routing": "workbench.core.routing",
        "RowExperts": "workbench.core.experts",
        "Site": "workbench.core.records",
        "SlotRouting": "workbench.core.mixture",
        "SparseRouting": "workbench.core.sparse",
        "Spec": "workbench.core.spec",
        "StepReport": "workbench.core.records",
        "Tally": "workbench.core.records",
    },
)
