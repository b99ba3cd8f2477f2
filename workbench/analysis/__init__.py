"""Numbers out of a trace: functions that take a Trace and return labelled arrays.

Every measure keeps phases apart (`phase=`) and layers apart, and says in its attributes what it was taken
over. `only` cuts a trace down first: to some steps, to one iteration, to the assignments that were kept.
"""

from workbench.core.lazy import lazy_exports

__all__ = [
    "RoutingDiff",
    "choice_entropy",
    "choice_margin",
    "co_activation",
    "dead_fraction",
    "diff_routings",
    "domain_profile",
    "domain_variation",
    "dropped_fraction",
    "expert_load",
    "fluctuation",
    "fluctuation_between",
    "layer_affinity",
    "layer_transition",
    "load_variation",
    "max_violation",
    "only",
    "pair_affinity",
    "shadow_agreement",
    "specialisation",
    "top_token_ids",
    "top_weight",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "RoutingDiff": "workbench.analysis.routing_diff",
        "choice_entropy": "workbench.analysis.confidence",
        "choice_margin": "workbench.analysis.confidence",
        "co_activation": "workbench.analysis.affinity",
        "dead_fraction": "workbench.analysis.load",
        "diff_routings": "workbench.analysis.routing_diff",
        "domain_profile": "workbench.analysis.profile",
        "domain_variation": "workbench.analysis.profile",
        "dropped_fraction": "workbench.analysis.load",
        "expert_load": "workbench.analysis.load",
        "fluctuation": "workbench.analysis.drift",
        "fluctuation_between": "workbench.analysis.drift",
        "layer_affinity": "workbench.analysis.affinity",
        "layer_transition": "workbench.analysis.affinity",
        "load_variation": "workbench.analysis.load",
        "max_violation": "workbench.analysis.load",
        "only": "workbench.analysis.select",
        "pair_affinity": "workbench.analysis.affinity",
        "shadow_agreement": "workbench.analysis.agreement",
        "specialisation": "workbench.analysis.specialise",
        "top_token_ids": "workbench.analysis.profile",
        "top_weight": "workbench.analysis.confidence",
    },
)
