"""Prefetchers: one file per prefetcher, the file name is the public name."""

from workbench.core.registry import Registry

__all__ = ["PREFETCHERS"]

PREFETCHERS = Registry("workbench.offload.prefetch", "workbench.offload.prefetcher:Prefetcher")
