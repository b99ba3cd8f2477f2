"""Cache policies: one file per policy, the file name is the public name."""

from workbench.core.registry import Registry

__all__ = ["POLICIES"]

POLICIES = Registry("workbench.offload.policies", "workbench.offload.policy:CachePolicy")
