"""What each command does to a run, between two steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.core.records import ExpertKey
from workbench.core.spec import Spec
from workbench.hub.commands import COMMANDS
from workbench.hub.schema import REQUIRED
from workbench.live.effect import measure_expert
from workbench.live.facts import is_steerable
from workbench.live.offloading import OFFLOAD_CHANGES, change_offload
from workbench.live.steering import PIN, Steer
from workbench.live.watched import Watched
from workbench.live.writing import write
from workbench.payloads.expert_effect import expert_effect_payload
from workbench.payloads.router_swap import router_swap_payload
from workbench.train.swap import SwapReport
from workbench.train.watch import watch_of

__all__ = ["ACTIONS", "AT_ONCE", "Done", "checked", "publish_swap"]

Args = Mapping[str, Any]
Undo = tuple[str, Callable[[], str]]


@dataclass(frozen=True)
class Done:
    """What a command did.

    Args:
        words: for people.
        result: plain values for views.
        undo: what taking it back would do, in words, and how.
        value: what the Python call returns.
    """

    words: str
    result: dict[str, Any] = field(default_factory=dict)
    undo: Undo | None = None
    value: Any = None


def _pause(run: Watched, args: Args, actor: str) -> Done:
    run.pace.pause()
    return Done(f"paused after step {run.trainer.step}")


def _resume(run: Watched, args: Args, actor: str) -> Done:
    run.pace.resume()
    return Done("going on")


def _step(run: Watched, args: Args, actor: str) -> Done:
    count = int(args.get("count", 1))
    run.pace.step(count)
    return Done(f"{count} step{'s' if count > 1 else ''}, then paused")


def _stop(run: Watched, args: Args, actor: str) -> Done:
    run.pace.stop()
    return Done(f"stopped after step {run.trainer.step}")


def _set_rate(run: Watched, args: Args, actor: str) -> Done:
    before, run.frames_per_second = run.frames_per_second, float(args["frames_per_second"])

    def back() -> str:
        run.frames_per_second = before
        return f"{before:g} pictures a second again"

    return Done(f"{run.frames_per_second:g} pictures a second at most", undo=_undo("the rate", back))


def _swap_router(run: Watched, args: Args, actor: str) -> Done:
    spec = Spec.parse(args["name"])
    return _swap(run, Spec(spec.name, {**spec.args, **args.get("args", {})}), args, actor)


def _set_router_args(run: Watched, args: Args, actor: str) -> Done:
    now = run.trainer.model.config.router
    return _swap(run, Spec(now.name, {**now.args, **args["args"]}), args, actor)


def _swap(run: Watched, router: Spec, args: Args, actor: str) -> Done:
    trainer = run.trainer
    before = str(trainer.model.config.router)
    report = trainer.swap(
        router, carry=args.get("carry", True), rebuild_experts=args.get("rebuild_experts", False), actor=actor
    )
    _renew_steering(run)
    publish_swap(run, report)
    moved = "" if report.diff is None else f"; {float(report.diff.moved.mean()):.0%} of the probe's assignments moved"
    result = {"stall_seconds": report.stall_seconds, "before": before, "after": str(router)}
    return Done(f"{report}{moved}", result, _undo(f"the swap to {router}", lambda: _swap_back(run)), report)


def _swap_back(run: Watched) -> str:
    words = run.trainer.undo()
    _renew_steering(run)
    return words


def _undo_last(run: Watched, args: Args, actor: str) -> Done:
    if not run.undo_stack:
        # a swap that was made before this run could be watched is known to its trainer alone.
        words = run.trainer.undo(actor=actor)
    else:
        _, back = run.undo_stack.pop()
        words = back()
    return Done(words, value=words)


def _rewind(run: Watched, args: Args, actor: str) -> Done:
    words = run.trainer.rewind(actor=actor)
    swaps = [place for place, (what, _) in enumerate(run.undo_stack) if what.startswith("the swap")]
    del run.undo_stack[swaps[-1] if swaps else len(run.undo_stack) :]
    _renew_steering(run)
    run.outlet.begin_anew(run.trainer.step)
    return Done(words, value=words)


def _set_shadow(run: Watched, args: Args, actor: str) -> Done:
    trainer, before, was = run.trainer, run.trainer.watch, run.shadow
    name = args["name"]
    router = str(Spec(name, args["args"])) if name is not None and args.get("args") else name
    trainer.watch = None if router is None else watch_of(trainer.model.config, trainer.config, router)
    run.shadow = None if router is None else str(router)

    def back() -> str:
        trainer.watch, run.shadow = before, was
        return f"shadow router: {was or 'none'}"

    words = (
        "no shadow router" if router is None else f"{router} watches the same hidden states; the run does not change"
    )
    trainer.note("set_shadow", {"name": run.shadow}, actor, words)
    return Done(words, undo=_undo("the shadow router", back), value=trainer.watch)


def _steer(kind: str) -> Callable[[Watched, Args, str], Done]:
    def act(run: Watched, args: Args, actor: str) -> Done:
        key = ExpertKey(int(args["layer"]), int(args["expert"]))
        biases = {"pin": PIN, "ban": float("-inf")}
        bias = biases[kind] if kind in biases else float(args["bias"])
        steer = None if bias == 0 else Steer(kind, bias)  # type: ignore[arg-type]
        router = run.trainer.model.config.router.name
        if steer is not None and not is_steerable(run.trainer.model):
            raise ValueError(f"router {router} does not let anybody steer its choice; swap to top_k, for instance")
        before = run.steering.steer(key, steer)
        words = _steered(key, steer)

        def back() -> str:
            run.steering.steer(key, before)
            _renew_steering(run)
            return _steered(key, before)

        _renew_steering(run)
        run.trainer.note(f"{kind}_expert", dict(args), actor, words)
        return Done(words, undo=_undo(words, back))

    return act


def _steered(key: ExpertKey, steer: Steer | None) -> str:
    name = f"expert {key.expert} of layer {key.layer}"
    if steer is None:
        return f"{name} is left to the router"
    words = {"pin": "pinned: every token goes there", "ban": "banned: no token goes there"}
    return f"{name} {words.get(steer.kind, f'gets {steer.bias:+g} on its score')}"


def _renew_steering(run: Watched) -> None:
    model = run.trainer.model
    model.steering = run.steering.bias(model.device)


def _measure_expert(run: Watched, args: Args, actor: str) -> Done:
    effect = measure_expert(run.trainer, ExpertKey(int(args["layer"]), int(args["expert"])))
    run.effects.append(effect.to_json())
    run.outlet.put("expert_effect", expert_effect_payload(run.effects), step=run.trainer.step)
    return Done(str(effect), effect.to_json(), value=effect)


def _generate(run: Watched, args: Args, actor: str) -> Done:
    written = write(run, args)
    return Done(f"{written.num_tokens} tokens in {written.seconds:.1f} s", {"text": written.text}, value=written)


def _checkpoint(run: Watched, args: Args, actor: str) -> Done:
    if run.trainer.folder is None:
        raise ValueError("this run is kept in memory; begin it with a folder to keep checkpoints")
    path = run.trainer.save()
    return Done(f"step {run.trainer.step} is kept" if path is None else f"kept as {path.name}", value=path)


def _annotate(run: Watched, args: Args, actor: str) -> Done:
    run.trainer.note("annotate", {"text": args["text"]}, actor, args["text"])
    return Done(args["text"])


def _take_over(run: Watched, args: Args, actor: str) -> Done:
    run.driver = actor
    return Done(f"{actor} drives now")


def _offload(op: str) -> Callable[[Watched, Args, str], Done]:
    return lambda run, args, actor: Done(change_offload(run.offloaded, op, args))


def _reset(run: Watched, args: Args, actor: str) -> Done:
    before = run.trainer.step
    words = run.trainer.rewind(actor=actor, to_start=True)
    if run.status in ("running", "paused"):
        # it still trains to where it was to end.
        run.left += before - run.trainer.step
    run.undo_stack.clear()
    run.effects.clear()
    run.steering.clear()
    _renew_steering(run)
    run.outlet.begin_anew(run.trainer.step)
    return Done(words, value=words)


def checked(op: str, args: Args) -> dict[str, Any]:
    """The arguments of a command that Python gives, with defaults; values are left to the action.

    Raises:
        LookupError: no such command.
        TypeError: an argument too many or too few.
    """
    if op not in COMMANDS:
        raise LookupError(f"unknown command {op!r}; there are {', '.join(COMMANDS)}")
    schema = COMMANDS[op]
    needed = {name for name, argument in schema.items() if argument.default is REQUIRED}
    if not needed <= args.keys() <= schema.keys():
        raise TypeError(f"{op} takes {', '.join(schema) or 'no arguments'}; got {', '.join(args) or 'none'}")
    return {**{name: argument.default for name, argument in schema.items()}, **args}


def publish_swap(run: Watched, report: SwapReport) -> None:
    """Show what a swap changed on the probe text."""
    if report.diff is None:
        return
    batches = run.trainer.batches
    probe = batches.probe()
    token_ids = probe.token_ids.flatten() if probe.mask is None else probe.token_ids[probe.mask]
    payload = router_swap_payload(
        report.diff,
        pieces=[batches.tokenizer.piece(token) for token in token_ids.tolist()],
        before=report.before,
        after=report.after,
        step=run.trainer.step + 1,
        stall_seconds=report.stall_seconds,
    )
    run.outlet.put("router_swap", payload, step=run.trainer.step)


def _undo(what: str, back: Callable[[], str]) -> Undo:
    return what, back


ACTIONS: Mapping[str, Callable[[Watched, Args, str], Done]] = {
    "annotate": _annotate,
    "ban_expert": _steer("ban"),
    "bias_expert": _steer("bias"),
    "checkpoint": _checkpoint,
    "generate": _generate,
    "measure_expert": _measure_expert,
    "pause": _pause,
    "pin_expert": _steer("pin"),
    "reset": _reset,
    "resume": _resume,
    "rewind": _rewind,
    **{op: _offload(op) for op in OFFLOAD_CHANGES},
    "set_rate": _set_rate,
    "set_router_args": _set_router_args,
    "set_shadow": _set_shadow,
    "step": _step,
    "stop": _stop,
    "swap_router": _swap_router,
    "take_over": _take_over,
    "undo": _undo_last,
}
"""By the name of the command; the closed list of what a viewer can ask for."""

AT_ONCE = frozenset({"pause", "resume", "step", "stop", *OFFLOAD_CHANGES})
"""What a run that stands still must hear, and what must not wait for a long job before it."""
