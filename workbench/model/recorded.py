"""Texts through a model with every token's routing recorded: one that is there, and one that it writes."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.core.context import Phase, RouteContext
from workbench.core.html import facts
from workbench.core.records import Batch, Event
from workbench.core.units import human_seconds
from workbench.data.tokenizer import Tokenizer
from workbench.model.generate import Generated, Sampling
from workbench.model.text import stream_text
from workbench.model.transformer import Transformer
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace

__all__ = ["Answer", "Events", "Written", "answer", "record_text", "recorder_of", "write_text"]

Events = Callable[[Generated, int], Sequence[Event]]
"""(a step of generation, step of the run) -> what happened beside it."""

_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A text that the model wrote, and how.

    Args:
        text: what follows the prompt.
        num_tokens: tokens written.
        seconds: time it took, without the time of the caller [s].
        settings: how it was drawn, in words.
        trained_seconds: how long the model had been trained [s].
        trace: routing of the prompt and of every new token but the last, which nothing followed.
    """

    prompt: str
    text: str
    num_tokens: int
    seconds: float
    settings: str
    trained_seconds: float
    trace: Trace = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        speed = f"{self.num_tokens} tokens at {self.num_tokens / max(self.seconds, 1e-9):.0f} tokens/s"
        note = f"written by a model trained for {human_seconds(self.trained_seconds)}; {self.settings}"
        return facts("Answer", {"prompt": _short(self.prompt), "text": _short(self.text), "speed": speed}, note=note)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text that a model wrote.

    Args:
        text: what follows the prompt.
        num_tokens: tokens drawn, an end token included.
        seconds: time it took [s].
        is_recomputed: the router sees later tokens, so the whole prefix was routed anew for every token.
    """

    text: str
    num_tokens: int
    seconds: float
    is_recomputed: bool

    def answer(self, prompt: str, *, settings: str, trained_seconds: float, trace: Trace) -> Answer:
        """The same with what a reader needs to judge it; see `Answer`."""
        return Answer(
            prompt=prompt,
            text=self.text,
            num_tokens=self.num_tokens,
            seconds=self.seconds,
            settings=settings,
            trained_seconds=trained_seconds,
            trace=trace,
        )


@torch.no_grad()
def record_text(
    model: Transformer, tokenizer: Tokenizer, token_ids: Sequence[int], recorder: Recorder, *, step: int, seed: int = 0
) -> None:
    """Record the routing of a text as one sequence, after the start token if the tokenizer has one.

    Args:
        step: what the trace says of when this was.
        seed: of routers that draw.

    Raises:
        ValueError: no token.
    """
    if not token_ids:
        raise ValueError("expected at least one token of text to record, got an empty text")
    lead = [] if tokenizer.start_id is None else [tokenizer.start_id]
    batch = Batch(token_ids=torch.tensor([[*lead, *token_ids]], device=model.device))
    output = model(batch.token_ids, context=RouteContext(phase="prefill", seed=seed))
    recorder.add(batch, output, phase="prefill", step=step)


def write_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    recorder: Recorder | None = None,
    step: int = 0,
    stop: Sequence[str] = (),
    seed: int = 0,
    on_text: Callable[[str], None] = lambda text: None,
    events_of: Events = lambda done, step: (),
) -> Written:
    """The model's continuation of a prompt, with the routing of all tokens but the last, which nothing follows.

    A router that sees later tokens gets the whole prefix anew for every token; the last of these passes is
    recorded, since it holds the others.

    Args:
        step: what the trace says of when this was.
        stop: the text ends before the first of these strings.
        on_text: called with each piece of text as it is written.
        events_of: called after each token; what its expert cache did for it goes into the recording.

    Raises:
        ValueError: an empty stop string, or a tokenizer larger than the model's vocabulary.
    """
    is_recomputed = not model.is_causal
    steps = stream_text(model, tokenizer, [prompt], sampling, stop=stop, seed=seed, recompute=is_recomputed)
    pieces: list[str] = []
    last: Generated | None = None
    count, began = 0, time.perf_counter()
    for part in steps:
        if part.generated is not None:
            count, last = count + 1, part.generated
            events = events_of(last, step)
            if recorder is not None:
                recorder.add_events(events)
            if recorder is not None and not is_recomputed:
                _record(recorder, last, step)
        if part.new[0]:
            pieces.append(part.new[0])
            on_text(part.new[0])
    if recorder is not None and is_recomputed and last is not None:
        _record(recorder, last, step)
    seconds = time.perf_counter() - began
    return Written(text="".join(pieces), num_tokens=count, seconds=seconds, is_recomputed=is_recomputed)


def answer(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    step: int,
    trained_seconds: float,
    stop: Sequence[str] = (),
    seed: int = 0,
    on_text: Callable[[str], None] = lambda text: None,
    events_of: Events = lambda done, step: (),
) -> Answer:
    """The model's continuation of a prompt with what a reader needs to judge it; see `write_text`.

    Args:
        trained_seconds: how long the model has been trained [s].

    Raises:
        ValueError: an empty stop string, or a tokenizer larger than the model's vocabulary.
    """
    recorder = recorder_of(model, tokenizer)
    about: dict[str, Any] = {"step": step, "stop": stop, "seed": seed, "on_text": on_text, "events_of": events_of}
    written = write_text(model, tokenizer, prompt, sampling, recorder=recorder, **about)
    again = f"; {model.config.router.name} sees later tokens, so the prefix was routed anew each time"
    settings = sampling.in_words(seed) + again * written.is_recomputed
    return written.answer(prompt, settings=settings, trained_seconds=trained_seconds, trace=recorder.trace())


def recorder_of(model: Transformer, tokenizer: Tokenizer) -> Recorder:
    """A recorder in memory that says which model and tokenizer it heard."""
    attrs = {"model": json.dumps(model.config.to_json()), "tokenizer": tokenizer.name}
    return Recorder(attrs=attrs, decode_piece=tokenizer.piece)


def _record(recorder: Recorder, done: Generated, step: int) -> None:
    phase: Phase = "decode" if done.phase == "decode" else "prefill"
    recorder.add(done.batch, done.output, phase=phase, step=step)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"
