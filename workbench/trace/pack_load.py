"""The `/load` group from forward passes: one row per training step, one per pass of a generation."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.records import Tally
from workbench.trace.blocks import Columns
from workbench.trace.passes import Pass, Sums
from workbench.trace.schema import GROUPS, TEXT

__all__ = ["load_columns", "opens_row"]

_MERGED = ("train", "eval")

Place = tuple[int, int]
"""Row and layer."""


def opens_row(last: tuple[int, str] | None, step: int, phase: str) -> bool:
    """Whether a pass begins a row of its own; the micro-batches of one training step share theirs."""
    return phase not in _MERGED or (step, phase) != last


def load_columns(passes: Sequence[Pass], found: Sequence[Sequence[Sums]]) -> Columns:
    """The group's arrays; empty when there is no pass but probes.

    Args:
        passes: forward passes in order.
        found: the sums of every pass.
    """
    rows = _rows(passes)
    if not rows:
        return {}
    sums_of = {id(item): sums for item, sums in zip(passes, found, strict=True)}
    sums = [((row, s.layer), s) for row, items in enumerate(rows) for item in items for s in sums_of[id(item)]]
    tallies = [((row, t.layer), t) for row, items in enumerate(rows) for item in items for t in item.tallies]
    size = (len(rows), max((place[1] + 1 for place, _ in [*sums, *tallies]), default=0))
    columns = _shares(size, sums, tallies) | _scores(size, sums)
    variables = GROUPS["load"].variables
    columns = {name: array.astype(variables[name].numpy_dtype) for name, array in columns.items()}
    columns["step"] = np.array([items[0].step for items in rows], dtype=np.int64)
    columns["phase"] = np.array([items[0].phase for items in rows], dtype=TEXT)
    columns["tokens"] = np.array([_tokens(items) for items in rows], dtype=np.int64)
    return columns | _aux(size, tallies)


def _rows(passes: Sequence[Pass]) -> list[list[Pass]]:
    rows: list[list[Pass]] = []
    for item in passes:
        if item.is_probe:
            continue
        last = (rows[-1][-1].step, rows[-1][-1].phase) if rows else None
        if opens_row(last, item.step, item.phase):
            rows.append([])
        rows[-1].append(item)
    return rows


def _tokens(items: Sequence[Pass]) -> int:
    tallied = [tally.tokens for item in items for tally in item.tallies]
    return max(tallied) if tallied else sum(item.tokens for item in items)


def _shares(size: Place, sums: Sequence[tuple[Place, Sums]], tallies: Sequence[tuple[Place, Tally]]) -> Columns:
    # a tally is summed over all ranks and micro-batches, so it wins over what this process saw.
    tallied = {place for place, _ in tallies}
    counted: list[tuple[Place, Tally | Sums]] = [*tallies]
    counted += [(place, s) for place, s in sums if place not in tallied]
    places = [place for place, _ in counted]
    demand = _total(size, places, [item.demand for _, item in counted])
    kept = _total(size, places, [item.kept for _, item in counted])
    exists = ~np.isnan(demand)
    experts = exists.sum(-1)
    asked, done = np.nansum(demand, -1), np.nansum(kept, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        load = demand / asked[..., None]
        spread = np.where(exists, (load - 1 / experts[..., None]) ** 2, 0.0).sum(-1)
        return {
            "load": load,
            "cv": np.sqrt(spread * experts),
            "dead_fraction": np.where(asked > 0, (demand == 0).sum(-1) / experts, np.nan),
            "dropped_fraction": (asked - done) / asked,
        }


def _scores(size: Place, sums: Sequence[tuple[Place, Sums]]) -> Columns:
    scored = [(place, s.prob, s.entropy, s.tokens) for place, s in sums if s.prob is not None and s.entropy is not None]
    places = [place for place, *_ in scored]
    prob = _total(size, places, [p for _, p, _, _ in scored])
    entropy = _total(size, places, [e for _, _, e, _ in scored])
    tokens = np.zeros(size)
    np.add.at(tokens, _index(places), [count for *_, count in scored])
    with np.errstate(invalid="ignore"):
        return {
            "prob_mean": _widen(prob / tokens[..., None], max((s.demand.shape[0] for _, s in sums), default=0)),
            "entropy": _widen(entropy, 1)[..., 0] / tokens,
        }


def _aux(size: Place, tallies: Sequence[tuple[Place, Tally]]) -> Columns:
    names = list(dict.fromkeys(name for _, tally in tallies for name in tally.losses))
    if not names:
        return {}
    values = np.full((*size, len(names)), np.nan, dtype=np.float32)
    for (row, layer), tally in tallies:
        for name, value in tally.losses.items():
            values[row, layer, names.index(name)] = value
    return {"aux": np.array(names, dtype=TEXT), "aux_loss": values}


def _total(size: Place, places: Sequence[Place], vectors: Sequence[Tensor]) -> Float[np.ndarray, "rows L W"]:
    """Vectors added up by row and layer; NaN beyond the widest vector of a place."""
    index, lengths = _index(places), np.array([vector.shape[0] for vector in vectors], dtype=np.intp)
    widths = np.zeros(size, dtype=np.intp)
    np.maximum.at(widths, index, lengths)
    values = np.zeros((*size, int(widths.max(initial=0))))
    for width in np.unique(lengths):
        # one transfer per width: a copy per vector would wait for the device each time.
        which = np.flatnonzero(lengths == width)
        stacked = torch.stack([vectors[i] for i in which.tolist()]).detach().cpu().double().numpy()
        np.add.at(values[..., :width], tuple(axis[which] for axis in index), stacked)
    values[np.arange(values.shape[-1]) >= widths[..., None]] = np.nan
    return values


def _index(places: Sequence[Place]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    pairs = np.array(places, dtype=np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _widen(values: Float[np.ndarray, "rows L W"], width: int) -> Float[np.ndarray, "rows L V"]:
    missing = max(width - values.shape[-1], 0)
    return np.pad(values, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
