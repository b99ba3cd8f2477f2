"""Numbers out of a trace: functions that take a Trace and return labelled arrays."""

from workbench.core.lazy import lazy_exports

__all__ = ["RoutingDiff", "diff_routings"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "RoutingDiff": "workbench.analysis.routing_diff",
        "diff_routings": "workbench.analysis.routing_diff",
    },
)
