"""What can decide about a cache, in words and plain data."""

import inspect
from typing import Any

from workbench.core.registry import Registry

__all__ = ["caching_rows"]


def caching_rows(registry: Registry) -> list[dict[str, Any]]:
    """Of every policy or prefetcher its name, what it does, where it runs, and its arguments with their defaults.

    Args:
        registry: of policies or of prefetchers; what they do is the first paragraph of their docstrings.
    """
    rows = []
    for name in registry.names():
        entry = registry.get(name)
        own = [p for p in inspect.signature(entry).parameters.values() if p.kind is p.KEYWORD_ONLY]
        # what has no default must be told.
        arguments = {p.name: "required" if p.default is p.empty else p.default for p in own}
        rows.append(
            {
                "name": name,
                "does": " ".join(inspect.cleandoc(entry.__doc__ or "").partition("\n\n")[0].split()),
                "reads_future": entry.reads_future,
                "runs": f"{'with these defaults ' if own else ''}only in a replay" if entry.reads_future else "",
                "arguments": arguments,
            }
        )
    return rows
