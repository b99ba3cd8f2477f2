"""Does `small` beat a dense model of equal active parameters after 2 M tokens? Three seeds each, paired.

Run as `python tests/bench/study_moe_against_dense.py runs/study`; about an hour on two cores. It can be
killed and started again: finished runs are read, a started one goes on. A second argument, `moe` or `dense`,
trains that kind alone, so that two processes can share the work. Both kinds see the same batches
in the same order, and the same optimiser settings; held-out loss is bits per byte over 32 windows of
each domain.
"""

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

from workbench.model.config import ModelConfig, preset
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.config import TrainConfig
from workbench.train.progress import with_progress

SEEDS = (0, 1, 2)
TOKENS = 2_000_000
TOP_K = 2


def kinds() -> dict[str, ModelConfig]:
    small = preset("small")
    every = tuple(range(small.num_layers))
    dense = replace(small, dense_layers=every, dense_width=TOP_K * small.expert_width)
    return {"dense": dense, "moe": small}


def trained(folder: Path, model: ModelConfig, seed: int) -> dict[str, object]:
    done = folder / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    base = TrainConfig()
    steps = -(-TOKENS // (base.batch_size * base.sequence_length))
    config = replace(
        base,
        seed=seed,
        num_steps=steps,
        schedule="cosine",
        checkpoint_every=50,
        keep_checkpoints=2,
        evaluation_windows=32,
        dtype="float32",
    )
    started = (folder / "run.json").exists()
    trainer = resume_training(folder) if started else start_training(Request(model=model), config, folder=folder)
    for _ in with_progress(trainer.run(steps - trainer.step), steps - trainer.step):
        pass
    result = {
        "bits_per_byte": trainer.evaluate(),
        "tokens": trainer.tokens,
        "seconds": trainer.state.trained_seconds,
        "parameters": trainer.model.num_parameters(),
        "active_parameters": trainer.model.num_parameters(choices_per_token=TOP_K),
    }
    trainer.close()
    done.write_text(json.dumps(result, indent=1))
    return result


def main(folder: Path, only: tuple[str, ...]) -> None:
    chosen = {kind: model for kind, model in kinds().items() if not only or kind in only}
    results = {
        (kind, seed): trained(folder / f"{kind}-{seed}", model, seed)
        for seed in SEEDS
        for kind, model in chosen.items()
    }
    if len(chosen) == len(kinds()):
        show(results)


def show(results: dict[tuple[str, int], dict[str, object]]) -> None:
    domains = list(results["moe", 0]["bits_per_byte"])
    rows = [f"| {'domain':12} | dense | MoE | MoE - dense per seed |", "|---|---|---|---|"]
    for domain in [*domains, "mean"]:
        values = {kind: [_score(results[kind, seed]["bits_per_byte"], domain) for seed in SEEDS] for kind in kinds()}
        gaps = [m - d for m, d in zip(values["moe"], values["dense"], strict=True)]
        cells = " | ".join(
            f"{statistics.mean(values[kind]):.4f} ± {statistics.stdev(values[kind]):.4f}" for kind in ("dense", "moe")
        )
        rows.append(f"| {domain:12} | {cells} | {', '.join(f'{gap:+.4f}' for gap in gaps)} |")
    for kind in kinds():
        facts = results[kind, 0]
        rows.append(
            f"{kind}: {facts['parameters']:,} parameters, {facts['active_parameters']:,} active, "
            f"{facts['tokens']:,} tokens"
        )
    rows.append(f"float32 on cpu, torch {torch.__version__}, seeds {', '.join(map(str, SEEDS))}, 32 windows per domain")
    sys.stdout.write("\n".join(rows) + "\n")


def _score(values: dict[str, float], domain: str) -> float:
    return statistics.mean(values.values()) if domain == "mean" else values[domain]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/study"), tuple(sys.argv[2:]))
