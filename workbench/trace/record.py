"""From a running model to a trace."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from workbench import __version__
from workbench.core.check import at_least
from workbench.core.context import Phase
from workbench.core.records import Batch, CacheEvent, ControlEvent, Event, Output, Residency, StepReport, Tally
from workbench.trace.blocks import Attrs, Block, cut, join, to_trace
from workbench.trace.checks import plain_attrs
from workbench.trace.files import open_trace
from workbench.trace.generations import Generations
from workbench.trace.pack_load import load_columns, opens_row
from workbench.trace.pack_records import control_columns, offload_columns, residency_columns, run_columns
from workbench.trace.pack_routing import routing_columns
from workbench.trace.passes import Pass, choose, measure
from workbench.trace.runs import resolve
from workbench.trace.sampling import Sampling
from workbench.trace.schema import SCHEMA, Trace, safe_text
from workbench.trace.store import TraceWriter

__all__ = ["Recorder"]

# a pass larger than this is measured at once: what it would pin until the block is full costs more.
_LARGE_PASS = 256
_HELD_TOKENS = 16384
_HELD_EVENTS = 4096


@final
class Recorder:
    """Collects what forward passes return and packs it, a block of steps at a time, into a trace.

    The routings it is given are kept by reference until they are packed; they must not be written
    to in place. A `step` is the number of optimiser steps done, in every phase; where nothing trains,
    it is the number of the forward pass. It never goes backwards, except by `rewind`.

    Args:
        writer: where blocks go; None keeps them in memory.
        sampling: which routings of training are kept.
        attrs: what the trace says of itself: model, tokenizer, seed, device. Plain values.
        decode_piece: text of a token id.
        block_steps: steps packed together; a killed run loses at most so many.

    Example:
        >>> recorder = Recorder(TraceWriter("runs/a/trace.zarr"), attrs={"model": "tiny"})
        >>> recorder.add(batch, output, phase="train", step=1, report=report)
        >>> recorder.close()
    """

    def __init__(
        self,
        writer: TraceWriter | None = None,
        *,
        sampling: Sampling | None = None,
        attrs: Mapping[str, Any] | None = None,
        decode_piece: Callable[[int], str] | None = None,
        block_steps: int = 64,
    ):
        at_least("block_steps", block_steps, 1)
        self.sampling = sampling or Sampling()
        self._writer = writer
        self._decode_piece = decode_piece
        self._block_steps = block_steps
        self._pieces: dict[int, str] = {}
        self._passes: list[Pass] = []
        self._reports: list[StepReport] = []
        self._events: dict[type[Event], list[Any]] = _no_events()
        self._blocks: list[Block] = []
        self._packed_blocks: list[Block] = []
        self._packed_rows = 0
        self._on_block: Callable[[Block], None] = lambda block: None
        self._rows = 0
        self._row: tuple[int, str] | None = None
        self._taken = 0
        self._held = 0
        self._last_step = -1
        self._generations = Generations(0 if writer is None else writer.num_generations)
        self._attrs: Attrs = {
            "": {**_about(), **plain_attrs(attrs or {})},
            "routing": {"sampling": str(self.sampling)},
        }
        if writer is not None:
            writer.describe(self._attrs)

    def add(
        self,
        batch: Batch,
        output: Output,
        *,
        phase: Phase,
        step: int,
        report: StepReport | None = None,
        events: Sequence[Event] = (),
        is_probe: bool = False,
        sequence: Int[Tensor, "B"] | None = None,
        position: Int[Tensor, "B"] | None = None,
    ) -> None:
        """Take one forward pass. Micro-batches of one training step are added one by one.

        Args:
            batch: what went in.
            output: what came out; its logits are not kept.
            phase: what the model was doing.
            step: optimiser steps done, this one included.
            report: of the step that this pass ends; `add_report` gives it later, too.
            events: what the expert cache did, and control events that the report does not hold.
            is_probe: this is the fixed probe text; its routing is kept, its load does not count.
            sequence: number of each row's generation. By default a prefill begins new ones and a
                decode step continues those of the last prefill.
            position: place of each row's first token. By default 0, or where the sequence ended.

        Raises:
            ValueError: a step that goes backwards, or a decode step that continues nothing.
        """
        if step < self._last_step:
            raise ValueError(f"step went back from {self._last_step} to {step}; call rewind({step}) first")
        places = self._generations.place(batch, phase, is_probe=is_probe, sequence=sequence, position=position)
        if not is_probe and opens_row(self._row, step, phase):
            self._make_room()
            self._rows, self._row, self._taken = self._rows + 1, (step, phase), 0
        self._last_step = step
        self._passes.append(self._pass(batch, output, phase, step, is_probe, places))
        if report is not None:
            self.add_report(report)
        if events:
            self.add_events(events)

    def add_report(self, report: StepReport, *, tallies: Sequence[Tally] = ()) -> None:
        """Take what an optimiser step reported, with the tallies of its sites where there are any.

        Tallies are summed over ranks and micro-batches, so their counts replace those of the passes.
        """
        self._reports.append(report)
        self.add_events(report.events)
        if tallies:
            self._passes.append(Pass(step=report.step, phase="train", tallies=tuple(tallies)))

    def add_events(self, events: Sequence[Event]) -> None:
        """Take events of the control room or of an expert cache, or where the experts were."""
        for event in events:
            self._events[type(event)].append(event)

    def is_probe_due(self, step: int) -> bool:
        """Whether the sampling asks for a pass of the probe text at this step."""
        return self.sampling.is_probe_due(step)

    def trace(self) -> Trace:
        """Everything so far, as one trace. Call it between steps, not between micro-batches."""
        self.flush()
        if self._writer is not None:
            return open_trace(self._writer.path)
        self._blocks = [join(self._blocks)] if self._blocks else []
        return to_trace(self._blocks[0] if self._blocks else {}, self._attrs)

    def pack(self) -> None:
        """Pack what is pending, so that who listens sees it; it is written with the next flush.

        A block on disk stays as large as it is without listeners. Call it between steps.
        """
        rows = self._rows
        block = self._packed()
        if block:
            self._packed_blocks.append(block)
            self._packed_rows += rows
            self._on_block(block)

    def listen(self, on_block: Callable[[Block], None]) -> None:
        """Hand every block to a function when it is packed, on the thread that packs; in place of the one before."""
        self._on_block = on_block

    def flush(self) -> None:
        """Pack what is pending into a block, full or not, and write it."""
        self.pack()
        if self._packed_blocks:
            self._blocks.append(join(self._packed_blocks))
            self._packed_blocks, self._packed_rows = [], 0
        # a block that could not be written, because the disk is full, waits here for the next call.
        while self._writer is not None and self._blocks:
            self._writer.append(self._blocks[0])
            del self._blocks[0]

    def rewind(self, step: int) -> None:
        """Forget what came after a step, as when training goes back to a checkpoint."""
        self.flush()
        self._last_step = min(self._last_step, step)
        if self._writer is None:
            self._blocks = [cut(join(self._blocks), step)] if self._blocks else []
        else:
            self._writer.rewind(step)

    def close(self) -> None:
        """Write what is pending and close the store; what is in memory stays readable."""
        try:
            self.flush()
        finally:
            if self._writer is not None:
                self._writer.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _pass(
        self,
        batch: Batch,
        output: Output,
        phase: Phase,
        step: int,
        is_probe: bool,
        places: tuple[list[int], list[int]],
    ) -> Pass:
        sites = tuple(output.sites)
        tokens = sites[0].routing.num_tokens if sites else 0
        is_sampled = phase in ("train", "eval") and not is_probe
        take = self.sampling.take(step, tokens, self._taken) if is_sampled else tokens
        self._taken += take
        # what carries a graph, or is large, is measured at once: held until the block is full it would pin memory.
        is_light = tokens <= _LARGE_PASS and not output.logits.requires_grad
        self._held += tokens if is_light else take
        with_prob = self.sampling.prob
        return Pass(
            step=step,
            phase=phase,
            is_probe=is_probe,
            tokens=tokens,
            take=take,
            with_prob=with_prob,
            batch=_detached(batch) if take else None,
            sequence=places[0],
            position=places[1],
            sites=sites if is_light else (),
            sums=() if is_light or is_probe else tuple(measure(site) for site in sites if not site.is_shadow),
            choices=() if is_light or not take else tuple(choose(s, take, with_prob=with_prob) for s in sites),
        )

    def _make_room(self) -> None:
        events = sum(map(len, self._events.values()))
        if self._packed_rows + self._rows >= self._block_steps or self._held >= _HELD_TOKENS or events >= _HELD_EVENTS:
            self.flush()

    def _packed(self) -> Block:
        passes, self._passes, self._rows, self._held, self._row = self._passes, [], 0, 0, None
        reports, self._reports = self._reports, []
        events, self._events = self._events, _no_events()
        sums, choices = resolve(passes)
        block: Block = {
            "run": run_columns(reports),
            "routing": routing_columns(passes, choices, self._piece_of),
            "load": load_columns(passes, sums),
            "offload": offload_columns(events[CacheEvent]),
            "residency": residency_columns(events[Residency]),
            "control": control_columns(events[ControlEvent]),
        }
        return {name: columns for name, columns in block.items() if columns}

    def _piece_of(self, token_id: int) -> str:
        if self._decode_piece is None:
            return ""
        if token_id not in self._pieces:
            self._pieces[token_id] = safe_text(self._decode_piece(token_id))
        return self._pieces[token_id]


def _no_events() -> dict[type[Event], list[Any]]:
    return {ControlEvent: [], CacheEvent: [], Residency: []}


def _detached(batch: Batch) -> Batch:
    # generation loops reuse the buffer of their token ids.
    return Batch(
        token_ids=batch.token_ids.detach().clone(),
        mask=None if batch.mask is None else batch.mask.detach().clone(),
        domain=None if batch.domain is None else batch.domain.detach().clone(),
        domains=batch.domains,
    )


def _about() -> dict[str, str]:
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "schema": SCHEMA,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": f"workbench {__version__}, torch {torch.__version__}, python {python}",
    }
