"""Routers side by side under equal tokens: every router with every seed, in parallel, cached and resumable."""

import multiprocessing
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from workbench.core.check import at_least
from workbench.core.spec import Spec
from workbench.data.catalog import open_corpus
from workbench.data.prepare import prepare
from workbench.model.config import preset
from workbench.model.router_parts import new_router
from workbench.train.arguments import check_router
from workbench.train.compare_cell import Cell, run_cell
from workbench.train.config import TrainConfig
from workbench.train.results import Results

__all__ = ["Comparison", "compare"]

_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared. All routers see the same batches in the same order for a seed.

    Args:
        routers: the first is what the others are tested against.
        steps: optimiser steps of every run.
        seeds: of weights, data order and noise.
        model: preset, with fields changed as in `tiny:num_experts=16`.
        corpus: registered name, or path to text.
        config: of the training, but for seed and number of steps.

    Raises:
        LookupError: an unknown name.
        ValueError: the same router twice, no seed, or arguments that do not fit.
    """

    routers: tuple[Spec, ...]
    steps: int = 500
    seeds: tuple[int, ...] = (0, 1, 2)
    model: str = "tiny"
    corpus: str = "mixed"
    config: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        names = [str(router) for router in self.routers]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"expected different routers to compare, at least one; got {', '.join(names) or 'none'}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"expected different seeds, at least one; got {self.seeds}")
        shape = preset(self.model)
        for router in self.routers:
            new_router(shape.with_router(check_router(router)), 0, 0)
        open_corpus(self.corpus)

    def cells(self) -> tuple[Cell, ...]:
        """One run for every router and seed; seeds come last, so that early results show every router."""
        configs = [
            replace(self.config, seed=seed, num_steps=self.steps, keep_checkpoints=1, checkpoint_every=100)
            for seed in self.seeds
        ]
        return tuple(
            Cell(router=router, model=self.model, corpus=self.corpus, config=config)
            for config in configs
            for router in self.routers
        )


def compare(
    comparison: Comparison,
    folder: str | Path,
    *,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Results:
    """The results of all runs; those in the folder are read, interrupted ones go on where they were.

    Args:
        folder: runs are kept in it, each under a hash of what it depends on.
        jobs: processes at a time, each with an equal part of the cores; one per physical core by default.
        on_progress: called with optimiser steps done and to do.

    Raises:
        ValueError: a damaged run; jobs below 1.
        OSError: the folder cannot be written.
    """
    cells, place = comparison.cells(), Path(folder) / "cells"
    jobs = min(len(cells), jobs or psutil.cpu_count(logical=False) or 1)
    at_least("jobs", jobs, 1)
    prepare(comparison.corpus)
    total, done = comparison.steps * len(cells), dict.fromkeys((cell.key() for cell in cells), 0)
    found: dict[str, dict[str, Any]] = {}

    def heard(key: str, step: int) -> None:
        done[key] = step
        on_progress(sum(done.values()), total)

    if jobs == 1:
        for cell in cells:
            found[cell.key()] = run_cell(cell, place, partial(heard, cell.key()))
    else:
        found = _in_parallel(cells, place, jobs, heard)
    return Results.of(
        [found[cell.key()] for cell in cells],
        routers=[str(router) for router in comparison.routers],
        seeds=comparison.seeds,
        facts=_facts(comparison, jobs),
    )


def _in_parallel(
    cells: Sequence[Cell], folder: Path, jobs: int, heard: Callable[[str, int], None]
) -> dict[str, dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    with context.Manager() as manager, ProcessPoolExecutor(jobs, mp_context=context) as pool:
        steps = manager.Queue()
        running = {pool.submit(_work, cell, folder, steps, threads): cell.key() for cell in cells}
        try:
            while any(not future.done() for future in running):
                _hear(steps, heard)
                _raise_first(running)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        return {running[future]: future.result() for future in as_completed(running)}


def _raise_first(running: Mapping[Future[dict[str, Any]], str]) -> None:
    for future in running:
        if future.done() and (error := future.exception()) is not None:
            raise error


def _hear(steps: Any, heard: Callable[[str, int], None]) -> None:
    try:
        heard(*steps.get(timeout=_POLL_SECONDS))
    except queue.Empty:
        return


def _work(cell: Cell, folder: Path, steps: Any, threads: int) -> dict[str, Any]:
    """One cell in a worker, which has its part of the cores and says how far it is through a queue."""
    torch.set_num_threads(threads)
    key = cell.key()
    return run_cell(cell, folder, lambda step: steps.put((key, step)))


def _facts(comparison: Comparison, jobs: int) -> Mapping[str, Any]:
    config = comparison.config
    return {
        "model": comparison.model,
        "corpus": comparison.corpus,
        "steps": comparison.steps,
        "tokens per run": comparison.steps * config.batch_size * config.sequence_length * config.micro_batches,
        "seeds": ", ".join(str(seed) for seed in comparison.seeds),
        "processes at a time": f"{jobs} of {os.cpu_count()} cores",
        "torch": str(torch.__version__),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
