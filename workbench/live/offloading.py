"""Where the experts of a run are while it writes: on disk or not, and what viewers may change about it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.core.spec import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.model import OffloadedModel, offload_model

if TYPE_CHECKING:
    from workbench.live.run import LiveRun

__all__ = ["NO_PREFETCHER", "OFFLOAD_CHANGES", "change_offload", "offload_run"]

NO_PREFETCHER = "none"
"""The name under which a viewer asks for no prefetcher."""

Change = tuple[Callable[[OffloadEngine], None], str]


def offload_run(
    run: "LiveRun", budget: int | str | None, policy: str | Spec, prefetch: str | Spec | None
) -> OffloadedModel | None:
    """Let a copy of the run's model write its texts, with the experts as they are now on disk.

    Args:
        budget: of the copy; None goes back to the model that trains.

    Raises:
        LookupError: an unknown policy or prefetcher.
        ValueError: a budget that is too small, or a model without experts.
    """

    def exchange() -> OffloadedModel | None:
        made = None if budget is None else offload_model(run.trainer.model, _config(budget, policy, prefetch))
        if run.offloaded is not None:
            run.offloaded.close()
        run.offloaded = made
        run.publish_state()
        return made

    return run.desk.do(exchange)


def _config(budget: int | str, policy: str | Spec, prefetch: str | Spec | None) -> OffloadConfig:
    specs = [Spec.parse(one) if isinstance(one, str) else one for one in (policy, prefetch) if one is not None]
    return OffloadConfig(budget=budget, policy=specs[0], prefetch=specs[1] if prefetch is not None else None)


def change_offload(offloaded: OffloadedModel | None, op: str, args: Mapping[str, Any]) -> str:
    """Change the cache between two tokens; what was done, in words.

    Raises:
        ValueError: nothing is offloaded, or the engine refuses; it is as it was.
        LookupError: an unknown policy or prefetcher.
    """
    if offloaded is None:
        raise ValueError(
            "this run keeps every expert in memory, so there is no cache to change; call session.offload() first"
        )
    change, words = OFFLOAD_CHANGES[op](args)
    offloaded.change(change)
    return words


def _cache_size(args: Mapping[str, Any]) -> Change:
    experts = int(args["experts"])
    return lambda engine: engine.set_capacity(experts), f"room for {experts} experts"


def _policy(args: Mapping[str, Any]) -> Change:
    spec = Spec.parse(str(args["name"]))
    return lambda engine: engine.set_policy(spec), f"policy {spec}"


def _prefetcher(args: Mapping[str, Any]) -> Change:
    name = str(args["name"])
    spec = None if name == NO_PREFETCHER else Spec.parse(name)
    return lambda engine: engine.set_prefetcher(spec), f"prefetcher {spec or NO_PREFETCHER}"


OFFLOAD_CHANGES: Mapping[str, Callable[[Mapping[str, Any]], Change]] = {
    "set_cache_size": _cache_size,
    "set_policy": _policy,
    "set_prefetcher": _prefetcher,
}
"""By the name of the command."""
