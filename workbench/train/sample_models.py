"""Four small models that differ in how they balance their experts: material for offload and analysis.

Run as `python -m workbench.train.sample_models FOLDER`. What is finished is skipped, what was
interrupted goes on.
"""

import sys
from dataclasses import replace
from pathlib import Path

from workbench.core.spec import Spec
from workbench.core.units import human_seconds
from workbench.model.config import ModelConfig, preset
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.config import TrainConfig
from workbench.train.progress import with_progress

__all__ = ["SAMPLES", "train_samples"]

_STEPS = 200


def _model(balance: float, *, shared_width: int = 0) -> ModelConfig:
    router = Spec("top_k", {"top_k": 2, "balance": balance})
    return replace(preset("tiny"), num_experts=16, router=router, shared_width=shared_width)


SAMPLES = {
    "no_balance": _model(0.0),
    "balance_0.01": _model(0.01),
    "balance_0.1": _model(0.1),
    "shared_expert": _model(0.01, shared_width=128),
}


def train_samples(
    folder: Path, *, steps: int = _STEPS, corpus: str = "mixed", batch_size: int = 16, sequence_length: int = 256
) -> None:
    """Train every sample model up to a step, each in a run of its own below the folder."""
    config = TrainConfig(
        num_steps=steps,
        batch_size=batch_size,
        sequence_length=sequence_length,
        checkpoint_every=50,
        keep_checkpoints=2,
    )
    for name, model in SAMPLES.items():
        run = folder / name
        request = Request(model=model, corpus=corpus)
        trainer = resume_training(run) if run.exists() else start_training(request, config, folder=run)
        sys.stderr.write(f"{name}: step {trainer.step} of {steps}\n")
        missing = max(0, steps - trainer.step)
        for _ in with_progress(trainer.run(missing), missing):
            pass
        trainer.close()
        sys.stderr.write(f"{name}: trained for {human_seconds(trainer.state.trained_seconds)} in {run}\n")


if __name__ == "__main__":
    train_samples(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/checkpoints"))
