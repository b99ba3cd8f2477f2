"""What recording costs: trainer steps at `small` with and without a recorder, interleaved in one process."""

import statistics
import time

import torch

from workbench.data.batches import Batches
from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.model.config import preset
from workbench.model.transformer import Transformer, initialise
from workbench.trace.record import Recorder
from workbench.trace.store import TraceWriter
from workbench.train.config import TrainConfig
from workbench.train.trainer import Trainer

STEPS = 20


def bench_recording_at_small(tmp_path):
    corpus, tokenizer = open_corpus("mixed"), load_tokenizer("mixed_bpe_4096")
    batches = Batches(corpus, tokenizer, batch_size=16, sequence_length=256, seed=0)
    config = TrainConfig(dtype="float32", checkpoint_every=0)
    recorder = Recorder(TraceWriter(tmp_path / "trace.zarr"), decode_piece=tokenizer.piece)
    trainers = {
        name: Trainer(initialise(Transformer(preset("small")), 0), batches, config, recorder=own)
        for name, own in {"with": recorder, "without": None}.items()
    }
    seconds = {name: [] for name in trainers}
    runs = {name: trainer.run(STEPS) for name, trainer in trainers.items()}
    for _ in range(STEPS):
        for name, run in runs.items():
            began = time.perf_counter()
            next(run)
            seconds[name].append(time.perf_counter() - began)
    began = time.perf_counter()
    recorder.flush()
    flush = time.perf_counter() - began
    with_, without = (statistics.median(seconds[name][2:]) for name in ("with", "without"))
    print(
        f"\nsmall, 16 x 256 tokens, float32, cpu, {torch.get_num_threads()} threads, {STEPS} interleaved steps, seed 0"
    )
    print(
        f"median step with recording {with_ * 1e3:.1f} ms, without {without * 1e3:.1f} ms: "
        f"{(with_ / without - 1) * 100:+.1f} %; "
        f"minima {min(seconds['with']) / min(seconds['without']) * 100 - 100:+.1f} %"
    )
    print(
        f"packing and writing a block of {STEPS} steps {flush * 1e3:.1f} ms, "
        f"{flush / STEPS / without * 100:.2f} % of a step "
        "(goal: under 3 % in all)"
    )
