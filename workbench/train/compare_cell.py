"""One cell of a comparison: one router and one seed, trained, measured, and kept under what it depends on."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.core.records import Batch, Output
from workbench.core.spec import Spec
from workbench.data.catalog import open_corpus
from workbench.model.config import preset
from workbench.model.flops import flops_per_token
from workbench.model.tensor_files import read_json, write_json
from workbench.routers import ROUTERS
from workbench.trace.record import Recorder
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.config import TrainConfig
from workbench.train.evaluate import evaluate_domains
from workbench.train.finite import NonFiniteLossError
from workbench.train.measures import held_out_measures, training_measures
from workbench.train.trainer import Trainer

__all__ = ["Cell", "run_cell"]

_RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is trained and measured; equal cells have equal results, up to the speed of the machine.

    Args:
        router: with its arguments.
        model: preset, with fields changed as in `tiny:num_experts=16`.
        corpus: registered name, or path to text.
        config: of the training; its seed and `num_steps` are those of the cell.
    """

    router: Spec
    model: str
    corpus: str
    config: TrainConfig

    def key(self) -> str:
        """Hash of everything that the result depends on but the machine and the code below the router.

        The source of the router's own module is in it, so that an edited router is trained again.
        """
        source = _source(ROUTERS.get(self.router.name))
        content = {
            "router": self.router.to_json(),
            "source": source,
            "model": preset(self.model).to_json(),
            "corpus": open_corpus(self.corpus).fingerprint,
            "config": self.config.to_json(),
            "version": __version__,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def folder(self, cells: Path) -> Path:
        """Where the cell is kept below a folder of cells."""
        return cells / f"{self.router.name}-seed{self.config.seed}-{self.key()}"

    def to_json(self) -> dict[str, Any]:
        """The cell as plain data."""
        return {"router": str(self.router), "model": self.model, "corpus": self.corpus, "seed": self.config.seed}


def _source(router: type) -> str:
    """The text of a router's module; of one that was written in a notebook, its name, since it may have no file."""
    module = inspect.getmodule(router)
    path = None if module is None else vars(module).get("__file__")
    return router.__qualname__ if path is None else Path(path).read_text("utf-8")


def run_cell(cell: Cell, cells: Path, on_step: Callable[[int], None] = lambda step: None) -> dict[str, Any]:
    """The cell's result: read if it is there, else trained to the end from where it was left.

    A loss that is no number ends the cell, not the comparison: the result then holds `failed`.

    Args:
        on_step: called with the number of steps done.

    Raises:
        ValueError: a run or a result in the folder is damaged.
    """
    folder = cell.folder(cells)
    steps = cell.config.num_steps
    assert steps is not None, "cells are trained to a fixed step"
    if (folder / _RESULT).is_file():
        on_step(steps)
        return read_json(folder / _RESULT)
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    request = Request(model=cell.model, corpus=cell.corpus, router=cell.router)
    trainer = resume_training(run) if run.exists() else start_training(request, cell.config, folder=run)
    on_step(trainer.step)
    try:
        for report in trainer.run(steps - trainer.step):
            on_step(report.step)
        result = {**cell.to_json(), **_measured(trainer)}
    except NonFiniteLossError as error:
        result = {**cell.to_json(), "failed": str(error)}
    finally:
        trainer.close()
    write_json(folder / _RESULT, result)
    return result


def _measured(trainer: Trainer) -> dict[str, Any]:
    """Held-out loss and routing in phase prefill, and what the run's own trace says of the training."""
    model, rows, tokens = trainer.model, 0, 0
    recorder = Recorder()

    def keep(batch: Batch, output: Output) -> None:
        nonlocal rows, tokens
        recorder.add(batch, output, phase="prefill", step=trainer.step)
        for site in output.sites:
            rows += int(site.routing.counts[: model.config.num_experts].sum())
            tokens += site.routing.num_tokens

    windows = trainer.config.evaluation_windows
    bits = evaluate_domains(model, trainer.batches, windows, trainer.precision, on_output=keep)
    active = rows / tokens * model.config.iterations
    assert trainer.recorder is not None, "runs in a folder are recorded"
    return {
        "bits_per_byte": bits,
        "active_experts": active,
        "flops_per_token": flops_per_token(model, choices_per_token=active, context=trainer.config.sequence_length),
        **held_out_measures(recorder.trace()),
        **training_measures(trainer.recorder.trace()),
        "parameters": model.num_parameters(),
        "sees_future": not model.is_causal,
        "tokens": trainer.tokens,
        "trained_seconds": trainer.state.trained_seconds,
    }
