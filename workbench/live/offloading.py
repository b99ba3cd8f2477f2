"""Where the experts of a run are while it writes: on disk or not, and what viewers may change about it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from workbench.core.records import Residency
from workbench.core.spec import Spec
from workbench.live.watched import Watched
from workbench.offload.config import OffloadConfig
from workbench.offload.model import OffloadedModel, offload_model
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace

__all__ = ["NO_PREFETCHER", "OFFLOAD", "OFFLOAD_CHANGES", "change_offload", "note_offload", "offload_run"]

OFFLOAD = OffloadConfig()
"""How a run is offloaded when nobody says otherwise."""

NO_PREFETCHER = "none"
"""The name under which a viewer asks for no prefetcher."""

Change = Callable[[OffloadedModel, Mapping[str, Any]], str]


def offload_run(
    run: Watched,
    how: OffloadConfig | int | str | None,
    *,
    policy: str | Spec | None = None,
    prefetch: str | Spec | None = None,
) -> OffloadedModel | None:
    """Let a copy of the run's model write its texts, with the experts as they are now on disk.

    Args:
        how: every option, or a budget alone; None goes back to the model that trains.
        policy: in the place of that of the options, as `lfu` or `lfu:half_life=64`; None leaves it.
        prefetch: as `policy`.

    Raises:
        LookupError: an unknown policy, prefetcher or format.
        ValueError: a budget that is too small, options that do not fit together, or a model without experts.
    """
    config = None if how is None else _config(how, _spec(policy), _spec(prefetch))

    def exchange() -> OffloadedModel | None:
        made = None if config is None else offload_model(run.trainer.model, config)
        if run.offloaded is not None:
            run.offloaded.close()
        run.offloaded = made
        run.outlet.show_offload(_beginning(made, run.trainer.step), step=run.trainer.step)
        run.publish_state()
        return made

    return run.desk.do(exchange)


def _beginning(offloaded: OffloadedModel | None, step: int) -> Trace:
    """What there is to show before the first text: where the experts are, if they are anywhere but in memory."""
    recorder = Recorder()
    if offloaded is not None:
        recorder.add_events([Residency(step=step, tier=offloaded.engine.residency())])
    trace = recorder.trace()
    if offloaded is not None:
        note_offload(trace, offloaded)
    return trace


def _config(how: OffloadConfig | int | str, policy: Spec | None, prefetch: Spec | None) -> OffloadConfig:
    config = how if isinstance(how, OffloadConfig) else OffloadConfig(budget=how)
    return replace(config, policy=policy or config.policy, prefetch=prefetch or config.prefetch)


def _spec(one: str | Spec | None) -> Spec | None:
    return Spec.parse(one) if isinstance(one, str) else one


def note_offload(trace: Trace, offloaded: OffloadedModel) -> None:
    """Say in a trace under which budgets its events came about, for those who show it."""
    trace.attrs["offload"] = json.dumps(offloaded.facts())


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
    return OFFLOAD_CHANGES[op](offloaded, args)


def _cache_size(offloaded: OffloadedModel, args: Mapping[str, Any]) -> str:
    slots, engine = int(args["slots"]), offloaded.engine
    offloaded.change(lambda engine: engine.set_capacity(slots))
    return f"room for {min(slots, engine.shape.num_pages)} {engine.precision.unit}"


def _policy(offloaded: OffloadedModel, args: Mapping[str, Any]) -> str:
    spec = Spec.parse(str(args["name"]))
    offloaded.change(lambda engine: engine.set_policy(spec))
    return f"policy {spec}"


def _prefetcher(offloaded: OffloadedModel, args: Mapping[str, Any]) -> str:
    name = str(args["name"])
    spec = None if name == NO_PREFETCHER else Spec.parse(name)
    offloaded.change(lambda engine: engine.set_prefetcher(spec))
    return f"prefetcher {spec or NO_PREFETCHER}"


OFFLOAD_CHANGES: Mapping[str, Change] = {
    "set_cache_size": _cache_size,
    "set_policy": _policy,
    "set_prefetcher": _prefetcher,
}
"""By the name of the command."""
