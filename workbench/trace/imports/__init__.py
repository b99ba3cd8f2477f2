"""Routing that other runtimes wrote down, as traces: llama.cpp's moe-trace CSV, SGLang's recorder.

Nothing is invented: what a dump does not say is NaN, or named in the trace's attribute `unknown`.
"""

from workbench.core.lazy import lazy_exports

__all__ = ["import_llama_cpp", "import_sglang"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "import_llama_cpp": "workbench.trace.imports.llama_cpp",
        "import_sglang": "workbench.trace.imports.sglang",
    },
)
