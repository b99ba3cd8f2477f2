"""Traces: what every token's experts were, recorded once and read by every view.

`Recorder` makes them, `TraceWriter` keeps them on disk, `open_trace` and `save_trace` move them, `validate` says
what is wrong with one, and `trace.moe` shows what is in it.
"""

from workbench.core.lazy import lazy_exports

__all__ = [
    "SCHEMA",
    "Problem",
    "Recorder",
    "Sampling",
    "Trace",
    "TraceAccessor",
    "TraceWriter",
    "from_arrays",
    "open_trace",
    "require_valid",
    "save_trace",
    "synthetic_trace",
    "to_table",
    "validate",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "SCHEMA": "workbench.trace.schema",
        "Problem": "workbench.trace.checks",
        "Recorder": "workbench.trace.record",
        "Sampling": "workbench.trace.sampling",
        "Trace": "workbench.trace.schema",
        "TraceAccessor": "workbench.trace.accessor",
        "TraceWriter": "workbench.trace.store",
        "from_arrays": "workbench.trace.convert",
        "open_trace": "workbench.trace.files",
        "require_valid": "workbench.trace.checks",
        "save_trace": "workbench.trace.files",
        "synthetic_trace": "workbench.trace.synth",
        "to_table": "workbench.trace.convert",
        "validate": "workbench.trace.checks",
    },
)
