"""CSV files of llama.cpp's moe-trace tools."""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Int

from workbench.core.check import within
from workbench.core.context import Phase
from workbench.trace.imports.dumped import DumpedPass, DumpedText, trace_of_dump
from workbench.trace.schema import Trace

__all__ = ["import_llama_cpp"]

_LONG = ("phase", "token", "layer", "rank", "expert")
_SHORT = ("layer", "expert")
_FORMS = (
    "a header 'phase,token,layer,rank,expert' or 'layer,expert', or rows 'position,layer,expert,expert,...' "
    "without a header"
)
_PHASES = ("prefill", "decode")
_LARGEST = 32767  # a trace keeps experts and layers as int16


class _Row(NamedTuple):
    """One layer's choice for one token."""

    line: int
    phase: Phase
    token: int
    layer: int
    experts: tuple[int, ...]


def import_llama_cpp(path: Path | str, *, num_experts: int, top_k: int | None = None, phase: Phase = "decode") -> Trace:
    """The routing in a file of `llama-moe-trace`, as one text.

    Three forms are read, told apart by the first line:

    - `phase,token,layer,rank,expert` under a header: one row per choice; `token` counts from 0 through the text.
      As written by a fork of the example in pull request 28544 of ggml-org/llama.cpp.
    - `position,layer,expert,expert,...` without a header: one row per token and layer; prompt rows have negative
      positions. As written by forks that have it as a tool (`tools/moe-trace`).
    - `layer,expert`, with or without that header: one row per choice and no tokens. As the pull request describes
      itself; its code could not be seen, so that rows come layer by layer for each ubatch, tokens in order and a
      token's experts together, is an assumption, and so is the header.

    The files hold no weights, no token ids and no number of experts. Layers are counted anew from the first that
    appears, their own number stays in the module's name. Early versions of the tools read a strided tensor as if it
    were contiguous: then experts of prompt tokens after the first of a batch are wrong, and nothing in the file shows
    it; decode rows are right.

    Args:
        num_experts: of a layer.
        top_k: experts of a token; needed for the third form, elsewhere checked if given.
        phase: of rows that do not say: the third form.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another form, or a row that is malformed, missing, doubled or out of range: the message names
            the line.
    """
    file = Path(path)
    within("num_experts", num_experts, 1, _LARGEST)
    with file.open(encoding="utf-8", newline="") as stream:
        lines = ((number, row) for number, row in enumerate(csv.reader(stream), 1) if row)
        rows = list(_rows(file, lines, top_k, phase))
    if not rows:
        raise ValueError(f"{file}: expected at least one row of routing, got none; was the model an MoE?")
    _check_range(file, rows, num_experts, top_k)
    layers = sorted({row.layer for row in rows})
    return trace_of_dump(
        list(_passes(file, rows, layers)),
        modules=[f"blk.{layer}" for layer in layers],
        num_experts=num_experts,
        origin="llama.cpp moe-trace",
        router="llama.cpp",
    )


def _rows(file: Path, lines: Iterator[tuple[int, list[str]]], top_k: int | None, phase: Phase) -> Iterator[_Row]:
    first = next(lines, None)
    if first is None:
        return
    number, header = first[0], tuple(cell.strip() for cell in first[1])
    if header == _LONG:
        yield from _long(file, lines)
    elif header == _SHORT or (len(header) == 2 and all(map(_is_integer, header))):
        yield from _short(file, lines if header == _SHORT else chain([first], lines), top_k, phase)
    elif len(header) > 2 and all(map(_is_integer, header)):
        yield from _wide(file, chain([first], lines))
    else:
        raise ValueError(f"{file}:{number}: expected {_FORMS}, got {','.join(header)!r}; is it a moe-trace file?")


def _long(file: Path, lines: Iterator[tuple[int, list[str]]]) -> Iterator[_Row]:
    """Choices of a token in a layer follow each other by rank."""
    open_row: _Row | None = None
    for number, row in lines:
        if len(row) != len(_LONG):
            raise _fault(file, number, f"{len(_LONG)} columns ({','.join(_LONG)})", f"{len(row)}", "truncated?")
        phase = row[0].strip()
        if phase not in _PHASES:
            raise _fault(file, number, "phase prefill or decode", repr(phase), "correct the row")
        token, layer, rank, expert = (_integer(file, number, *pair) for pair in zip(_LONG[1:], row[1:], strict=True))
        same = open_row is not None and (open_row.phase, open_row.token, open_row.layer) == (phase, token, layer)
        expected = len(open_row.experts) if same and open_row is not None else 0
        if rank != expected:
            raise _fault(file, number, f"rank {expected} of token {token} in layer {layer}", rank, "rows are missing")
        if same and open_row is not None:
            open_row = open_row._replace(experts=(*open_row.experts, expert))
            continue
        if open_row is not None:
            yield open_row
        open_row = _Row(number, cast(Phase, phase), token, layer, (expert,))
    if open_row is not None:
        yield open_row


def _wide(file: Path, lines: Iterator[tuple[int, list[str]]]) -> Iterator[_Row]:
    """Prompt tokens are numbered from below zero, batch by batch, so their order is that of the file."""
    number_of: dict[int, int] = {}
    width = 0
    for number, row in lines:
        width = width or len(row)
        if len(row) != width:
            raise _fault(file, number, f"{width} columns as in the first row", len(row), "is the last row cut off?")
        position, layer, *experts = (_integer(file, number, "a cell", cell) for cell in row)
        token = number_of.setdefault(position, len(number_of))
        yield _Row(number, "prefill" if position < 0 else "decode", token, layer, tuple(experts))


def _short(file: Path, lines: Iterator[tuple[int, list[str]]], top_k: int | None, phase: Phase) -> Iterator[_Row]:
    """A run of one layer is a batch of tokens; where layers begin again, so does the next batch."""
    if top_k is None:
        raise ValueError(
            f"{file}: rows 'layer,expert' do not say where a token ends; give top_k, the experts of a token"
        )
    start = tokens = 0
    last: int | None = None
    for number, layer, experts in _runs(file, lines):
        if last is None or layer < last:
            start, tokens = start + tokens, len(experts) // top_k
        if len(experts) != tokens * top_k or not tokens:
            what = f"{max(tokens, 1)} tokens of {top_k} experts in layer {layer}"
            raise _fault(file, number, what, f"{len(experts)} rows", "is top_k right, the file whole?")
        for token in range(tokens):
            yield _Row(number, phase, start + token, layer, tuple(experts[token * top_k : (token + 1) * top_k]))
        last = layer


def _runs(file: Path, lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, int, list[int]]]:
    """First line, layer and experts of the rows of one layer that stand together."""
    parsed = ((number, *_pair(file, number, row)) for number, row in lines)
    for layer, group in groupby(parsed, key=lambda row: row[1]):
        rows = list(group)
        yield rows[0][0], layer, [expert for _, _, expert in rows]


def _pair(file: Path, number: int, row: list[str]) -> tuple[int, int]:
    if len(row) != len(_SHORT):
        raise _fault(file, number, "2 columns (layer,expert)", len(row), "is the last row cut off?")
    return _integer(file, number, "layer", row[0]), _integer(file, number, "expert", row[1])


def _passes(file: Path, rows: Sequence[_Row], layers: Sequence[int]) -> Iterator[DumpedPass]:
    """The prompt as one pass, decode tokens one by one."""
    place = {layer: index for index, layer in enumerate(layers)}
    numbers = {row.token for row in rows}
    tokens = max(numbers) + 1
    if len(numbers) != tokens:
        missing = next(token for token in range(tokens) if token not in numbers)
        raise ValueError(f"{file}: expected tokens 0 to {tokens - 1}, got no row for token {missing}; trace again")
    width = len(rows[0].experts)
    expert = np.full((tokens, len(layers), width), -1, dtype=np.int32)
    phases: list[Phase | None] = [None] * tokens
    for row in rows:
        if len(row.experts) != width:
            what = f"{width} experts as for the first token"
            raise _fault(file, row.line, what, f"{len(row.experts)} for token {row.token}", "rows are missing")
        if expert[row.token, place[row.layer], 0] >= 0:
            what = f"token {row.token} once in layer {row.layer}"
            raise _fault(file, row.line, what, "it again", "is it two traces in one file? split them")
        if phases[row.token] not in (None, row.phase):
            raise _fault(file, row.line, f"token {row.token} in {phases[row.token]}", row.phase, "correct the row")
        phases[row.token] = row.phase
        expert[row.token, place[row.layer]] = row.experts
    if (expert[..., 0] < 0).any():
        token, layer = np.argwhere(expert[..., 0] < 0)[0].tolist()
        raise ValueError(
            f"{file}: expected every token in each of the layers {layers[0]} to {layers[-1]} that appear, got no row "
            f"for token {token} in layer {layers[layer]}; the file is cut off or was edited, trace again"
        )
    yield from _cut(expert, [phase or "decode" for phase in phases])


def _cut(expert: Int[np.ndarray, "T L K"], phases: Sequence[Phase]) -> Iterator[DumpedPass]:
    prompt = next((token for token, phase in enumerate(phases) if phase != "prefill"), len(phases))
    bounds = [0, *range(max(prompt, 1), len(phases) + 1)] if prompt else list(range(len(phases) + 1))
    for start, stop in pairwise(bounds):
        text = DumpedText(0, start, np.full(stop - start, -1), expert[start:stop])
        yield DumpedPass(phases[start], [text])


def _check_range(file: Path, rows: Sequence[_Row], num_experts: int, top_k: int | None) -> None:
    for row in rows:
        if not 0 <= row.layer <= _LARGEST or row.token < 0:
            where = f"layer {row.layer}, token {row.token}"
            raise _fault(file, row.line, "a layer and a token that are not negative", where, "correct the row")
        if min(row.experts) < 0 or max(row.experts) >= num_experts:
            what = f"experts between 0 and num_experts - 1 = {num_experts - 1}"
            raise _fault(file, row.line, what, list(row.experts), "give the model's number of experts")
        if len(set(row.experts)) != len(row.experts):
            raise _fault(file, row.line, "different experts for a token", list(row.experts), "trace again")
        if top_k is not None and len(row.experts) != top_k:
            raise _fault(file, row.line, f"top_k={top_k} experts of a token", len(row.experts), "correct top_k")


def _is_integer(cell: str) -> bool:
    return cell.strip().removeprefix("-").isdecimal()


def _integer(file: Path, line: int, name: str, cell: str) -> int:
    if not _is_integer(cell):
        raise _fault(file, line, f"a whole number for {name}", repr(cell), "is the row cut off?")
    return int(cell)


def _fault(file: Path, line: int, expected: str, got: object, todo: str) -> ValueError:
    return ValueError(f"{file}:{line}: expected {expected}, got {got}; {todo}")
