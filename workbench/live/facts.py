"""What viewers are told of a training: its model, its data and how far it is."""

import inspect
from functools import cache
from typing import Any

from workbench.core.records import StepReport
from workbench.core.registry import Registry
from workbench.live.offloading import NO_PREFETCHER
from workbench.model.transformer import Transformer
from workbench.offload.model import OffloadedModel
from workbench.offload.policies import POLICIES
from workbench.offload.prefetch import PREFETCHERS
from workbench.routers import ROUTERS
from workbench.train.trainer import Trainer

__all__ = ["choices", "facts_of", "is_steerable"]


_NOBODY = {"name": NO_PREFETCHER, "changes": "Guesses nothing: an expert is read when it is asked for."}


def facts_of(trainer: Trainer, report: StepReport | None, offloaded: OffloadedModel | None) -> dict[str, Any]:
    """The part of a run's state that its trainer knows, and how its experts are offloaded."""
    model, folder = trainer.model.config, trainer.folder
    return {
        "step": trainer.step,
        "tokens": trainer.tokens,
        "tokens_per_second": None if report is None else report.tokens_per_second,
        "loss": None if report is None else report.loss,
        "learning_rate": None if report is None else report.learning_rate,
        "model": f"{model.num_layers} blocks, width {model.width}, {model.num_experts} experts",
        "router": model.router.name,
        "router_args": dict(model.router.args),
        "corpus": trainer.batches.corpus.name,
        "seed": trainer.config.seed,
        "num_layers": len(model.moe_layers),
        "num_experts": model.num_experts,
        "top_k": model.router.args.get("top_k"),
        "folder": None if folder is None else str(folder.parent),
        "can_rewind": trainer.can_rewind,
        "is_steerable": is_steerable(trainer.model),
        "offload": None if offloaded is None else offloaded.facts(),
        "choices": choices(),
    }


def is_steerable(model: Transformer) -> bool:
    """Whether every router of the model lets people add to its choice."""
    return all(router.steerable for layer in model.moe_layers() for router in layer.routers)


@cache
def choices() -> dict[str, list[dict[str, str]]]:
    """The names that commands may use, with a line on each."""
    routers = [{"name": name, "changes": ROUTERS.get(name).card.changes} for name in ROUTERS.names()]
    return {"router": routers, "policy": _lines(POLICIES), "prefetcher": [_NOBODY, *_lines(PREFETCHERS)]}


def _lines(registry: Registry) -> list[dict[str, str]]:
    """The entries that a running model can use, with a line on each."""
    entries = {name: registry.get(name) for name in registry.names()}
    lines = {name: (inspect.getdoc(entry) or "").partition("\n")[0] for name, entry in entries.items()}
    return [{"name": name, "changes": lines[name]} for name, entry in entries.items() if entry.reads_future is not True]
