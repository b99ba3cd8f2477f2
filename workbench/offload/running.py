"""Policies and prefetchers for a running model: no oracles."""

from workbench.core.registry import Registry
from workbench.core.spec import Spec
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.prefetcher import Prefetcher

__all__ = ["running_policy", "running_prefetcher"]


def running_policy(spec: Spec, shape: CacheShape) -> CachePolicy:
    """A policy that decides by what has happened.

    Raises:
        LookupError: unknown policy.
        ValueError: arguments that it does not take, or an oracle.
    """
    policy: CachePolicy = spec.build(POLICIES, shape)
    _no_oracle(spec, policy.reads_future, POLICIES)
    return policy


def running_prefetcher(spec: Spec, shape: CacheShape) -> Prefetcher:
    """A prefetcher that guesses from what has happened.

    Raises:
        LookupError: unknown prefetcher.
        ValueError: arguments that it does not take, or an oracle.
    """
    prefetcher: Prefetcher = spec.build(PREFETCHERS, shape)
    _no_oracle(spec, prefetcher.reads_future, PREFETCHERS)
    return prefetcher


def _no_oracle(spec: Spec, reads_future: bool, registry: Registry) -> None:
    if reads_future:
        others = [name for name in registry.names() if not registry.get(name).reads_future]
        raise ValueError(
            f"{spec} looks into the future, which a running model does not have; use it in replay, or take one of "
            f"{', '.join(others)}"
        )
