"""What a notebook says of an object in a few rows."""

from typing import Any

from workbench import view
from workbench.core.html import facts
from workbench.core.units import human_count, human_seconds
from workbench.live.notebook import in_notebook
from workbench.live.run import LiveRun
from workbench.train.run_folder import RunFolder
from workbench.train.trainer import Trainer

__all__ = ["live_bundle", "live_widget", "session_card"]

_SHOWN_DOMAINS = 12


def session_card(trainer: Trainer, folder: RunFolder | None) -> str:
    """A training: its model, its data, how far it is, and where it is kept."""
    model, corpus = trainer.model, trainer.batches.corpus
    shown, more = corpus.domains[:_SHOWN_DOMAINS], len(corpus.domains) - _SHOWN_DOMAINS
    rows = {
        "model": f"{human_count(model.num_parameters())} parameters, {model.config.num_layers} blocks",
        "router": str(model.config.router),
        "corpus": f"{corpus.name}: {', '.join(shown)}{f' and {more} more' * (more > 0)}",
        "step": trainer.step,
        "tokens seen": human_count(trainer.tokens),
        "products in": f"{trainer.precision.dtype}, because {trainer.precision.reason}",
        "kept in": "memory" if folder is None else folder.path,
    }
    return facts("Session", rows, note=f"trained for {human_seconds(trainer.state.trained_seconds)}")


def live_widget(run: LiveRun) -> view.LiveWidget:
    """The live widget of a run, which is opened for it."""
    return view.LiveWidget(run.open())


def live_bundle(run: LiveRun) -> dict[str, Any]:
    """The live widget of a run by MIME type; nothing outside of a notebook. The run is opened for it."""
    if not in_notebook():
        return {}
    bundle = live_widget(run)._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    return {kind: value for kind, value in (data or {}).items() if kind != "text/html"}
