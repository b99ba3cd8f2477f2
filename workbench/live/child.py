"""A run in a process of its own: `python -m workbench child` reads what to train from its standard input."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import torch

from workbench.core.spec import Spec
from workbench.live.run import LiveRun
from workbench.train.assemble import Request, start_training
from workbench.train.config import TrainConfig
from workbench.train.watch import watch_of

__all__ = ["build", "main", "runs_folder"]

_IDLE_SECONDS = 600.0


def main() -> None:
    """Train what the request says, stay for commands, and end with the clock, on `stop` or when nobody comes."""
    request = json.load(sys.stdin)
    torch.set_num_threads(int(request["caps"]["threads"]))
    run = build(request)
    signal.signal(signal.SIGTERM, lambda *_: run.pace.stop())
    clock = threading.Timer(float(request["caps"]["seconds"]), run.pace.stop)
    clock.daemon = True
    clock.start()
    threading.Thread(target=_watch_parent, args=(run, os.getppid()), name="workbench parent", daemon=True).start()
    run.open()
    try:
        for _ in run.steps(int(request["options"]["steps"])):
            pass
        _stay(run)
    finally:
        run.close()
        run.trainer.close()


def build(request: Mapping[str, Any], *, folder: Path | None = None) -> LiveRun:
    """The run that a request asks for, not yet open.

    Args:
        request: `id`, `title`, `owner` and `options`, all of them: see `workbench.hub.lessons`.
        folder: of its checkpoints and trace; one of its own by default.

    Raises:
        LookupError: an unknown router or corpus.
        ValueError: options that do not fit.
    """
    options = request["options"]
    weights = {} if options["balance"] is None else {"balance": float(options["balance"])}
    config = TrainConfig(
        seed=options["seed"],
        batch_size=options["batch_size"],
        sequence_length=options["sequence_length"],
        learning_rate=options["learning_rate"],
        aux_weights=weights,
        checkpoint_every=200,
    )
    router = Spec(options["router"], options["router_args"])
    device = "cuda" if options["device"] == "gpu" else "cpu"
    asked = Request(model=options["model"], corpus=options["corpus"], router=router, device=device)
    place = folder or runs_folder() / f"{request['preset']}-{request['id'][:8]}"
    trainer = start_training(asked, config, folder=place)
    said = {name: options[name] for name in ("model", "corpus", "seed", "batch_size", "sequence_length")}
    arguments = ", ".join(f"{name}={value!r}" for name, value in {**said, "router": str(router)}.items())
    code = f"session = Session({arguments})"
    run = LiveRun(
        trainer, title=request["title"], code=code, kind="child", owner=request["owner"], run_id=request["id"]
    )
    if options["shadow"] is not None:
        trainer.watch, run.shadow = watch_of(trainer.model.config, config, options["shadow"]), options["shadow"]
    return run


def runs_folder() -> Path:
    """Where runs are kept that nobody gave a folder."""
    return Path(platformdirs.user_data_dir("moe-workbench")) / "runs"


def _watch_parent(run: LiveRun, parent: int) -> None:
    """End with the server, however it ended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    run.pace.stop()


def _stay(run: LiveRun) -> None:
    """Answer commands after the last step, until somebody stops the run or nobody comes any more."""
    seen, since = len(run.outlet.journal.records), time.monotonic()
    while not run.pace.is_stopping and time.monotonic() - since < _IDLE_SECONDS:
        time.sleep(0.2)
        if len(run.outlet.journal.records) != seen:
            seen, since = len(run.outlet.journal.records), time.monotonic()
