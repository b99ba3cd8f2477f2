"""Texts that the model of a run reads or writes between two of its steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workbench.live.offloading import note_offload
from workbench.live.watched import Watched
from workbench.model.generate import Sampling
from workbench.model.recorded import Answer, Written, answer, record_text, recorder_of, write_text
from workbench.payloads.generation import GenerationStatus, generation_payload
from workbench.trace.schema import Trace

__all__ = ["record", "reply", "write"]

_SHOW_SECONDS = 0.2


def record(run: Watched, text: str) -> Trace:
    """The routing of a text under the run's model as it is now, in all layers.

    Raises:
        ValueError: an empty text.
    """
    trainer, tokenizer = run.trainer, run.trainer.batches.tokenizer
    recorder, seed = recorder_of(trainer.model, tokenizer), trainer.config.seed
    token_ids, step = tokenizer.encode(text), trainer.step
    run.desk.do(lambda: record_text(trainer.model, tokenizer, token_ids, recorder, step=step, seed=seed))
    return recorder.trace()


def reply(
    run: Watched, prompt: str, sampling: Sampling, *, seed: int, stop: Sequence[str], on_text: Callable[[str], None]
) -> Answer:
    """The model's continuation of a prompt, by the offloaded model where the run has one.

    Raises:
        ValueError: an empty stop string, or a router that cannot generate.
    """
    trainer, offloaded = run.trainer, run.offloaded
    how: dict[str, Any] = {"step": trainer.step, "trained_seconds": trainer.state.trained_seconds}
    how |= {"seed": seed, "stop": stop, "on_text": on_text}
    if offloaded is None:
        return answer(trainer.model, trainer.batches.tokenizer, prompt, sampling, **how)
    with offloaded.writing():
        how["events_of"] = offloaded.events_of
        said = answer(offloaded.model, trainer.batches.tokenizer, prompt, sampling, **how)
        note_offload(said.trace, offloaded)
        return said


def write(run: Watched, args: Mapping[str, Any]) -> Written:
    """The continuation of a prompt; the topic `generation` follows it, and those of offloading where there is any.

    Raises:
        ValueError: sampling values out of range, or a router that cannot generate.
    """
    trainer, offloaded = run.trainer, run.offloaded
    tokenizer, seed = trainer.batches.tokenizer, int(args.get("seed", 0))
    sampling = Sampling(
        max_new_tokens=int(args.get("max_new_tokens", 64)),
        temperature=float(args.get("temperature", 0.8)),
        top_p=float(args.get("top_p", 0.95)),
    )
    recorder = recorder_of(trainer.model, tokenizer)
    pieces: list[str] = []
    shown = [0.0]

    def show(status: GenerationStatus) -> None:
        shown[0] = time.monotonic()
        trace = recorder.trace()
        payload = generation_payload(
            trace,
            prompt=args["prompt"],
            text="".join(pieces),
            status=status,
            settings={**asdict(sampling), "seed": seed},
        )
        run.outlet.put("generation", payload, step=run.trainer.step)
        if offloaded is not None:
            note_offload(trace, offloaded)
            run.outlet.show_offload(trace, step=run.trainer.step)

    def on_text(text: str) -> None:
        pieces.append(text)
        if time.monotonic() - shown[0] >= _SHOW_SECONDS:
            show("writing")

    how: dict[str, Any] = {"recorder": recorder, "step": trainer.step, "seed": seed, "on_text": on_text}
    if offloaded is None:
        written = write_text(trainer.model, tokenizer, args["prompt"], sampling, **how)
    else:
        with offloaded.writing():
            model, events_of = offloaded.model, offloaded.events_of
            written = write_text(model, tokenizer, args["prompt"], sampling, **how, events_of=events_of)
    show("finished")
    return written
