"""What lossy experts save and what they cost: bytes, experts that fit a quarter, speed beside exact, KL and loss.

The first table is a model of `make checkpoints` under a budget of a quarter of its experts as they are; all formats
draw from the same prompt with the same seed, in turn. The second is the same model in memory with its weights replaced:
loss against bytes for round-to-nearest, plain singular values, residual blocks and deltas to the mean expert. The third
is speed alone, on random weights with experts of a size that is worth reading from disk. KL and loss are on held-out
text of every domain. Without checkpoints only the third is measured.
"""

import statistics
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from workbench.core.spec import Spec
from workbench.core.units import human_bytes
from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.model.config import preset
from workbench.model.folders import tokenizer_folder
from workbench.model.generate import Sampling, generate
from workbench.model.recorded import record_text, recorder_of
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import load, save_model
from workbench.offload.config import OffloadConfig
from workbench.offload.formats import FORMATS
from workbench.offload.formats._groups import rounded, scaled
from workbench.offload.model import open_offloaded
from workbench.offload.precision.levels import usage_of
from workbench.offload.precision.lossy import loss_of_precision
from workbench.offload.replay.recorded import requests_of

MODEL, UNBALANCED = Path("runs/checkpoints/balance_0.01"), Path("runs/checkpoints/no_balance")
SHAPE = "base:num_experts=16,num_layers=3"
TOKENS, WINDOW, NEW, ROUNDS, SHARE = 4096, 512, 32, 5, "25%"
LEVELS = Spec("int4", {"levels": 2})
ARMS = {
    "exact": {},
    "int8": {"format": Spec("int8")},
    "int4": {"format": Spec("int4")},
    "int4, 1.5 of 2 levels alike": {"format": LEVELS, "mean_levels": 1.5},
    "int4, 1.5 of 2 levels by use": {"format": LEVELS, "mean_levels": 1.5, "usage": ()},
    "int4, 2 levels": {"format": LEVELS},
    **{
        f"residual, {name}{words}": {"format": Spec("residual", of), "mean_levels": mean, **more}
        for name, of, mean in (
            ("4 blocks", {"levels": 4}, None),
            ("2 blocks, rank 4", {"levels": 2, "rank": 4}, None),
            ("2 of 6 blocks", {"levels": 6}, 2),
            ("3 of 6 blocks", {"levels": 6}, 3),
        )
        for words, more in (("", {}), (", calibrated", {"calibration": ()}))
    },
    "residual, 3 of 6, cal., use": {
        "format": Spec("residual", {"levels": 6}),
        "mean_levels": 3,
        "calibration": (),
        "usage": (),
    },
    "exact, skip 0.3": {"skip": 0.3},
    "int4, skip 0.3": {"format": Spec("int4"), "skip": 0.3},
}

HEADER = f"{'':30}{'an expert':>10}{'fit':>15}{'hits':>8}{'tokens/s':>9}{'ratio':>8}{'of best':>8}"


def tokens_of(tokenizer, split, count):
    corpus = open_corpus("mixed")
    texts = [islice(corpus.documents(split, domain), 3) for domain in corpus.domains]
    most = count // len(texts) + 1
    ids = [[token for text in documents for token in tokenizer.encode(text)][:most] for documents in texts]
    return [token for one in ids for token in one][:count]


def usage(model, tokenizer):
    recorder, ids = recorder_of(model, tokenizer), tokens_of(tokenizer, "train", TOKENS)
    for step, first in enumerate(range(0, len(ids), WINDOW)):
        record_text(model, tokenizer, ids[first : first + WINDOW], recorder, step=step)
    return tuple(float(count) for count in usage_of(requests_of(recorder.trace())))


def decode(model, prompt):
    began = time.perf_counter()
    # drawn, because a greedy text soon goes in circles and asks for the same experts.
    for _ in generate(model, [prompt], Sampling(max_new_tokens=NEW, temperature=1.0), seed=0):
        pass
    return NEW / (time.perf_counter() - began)


def one_thread():
    """Tensors this small only wait for a second thread."""
    torch.set_num_threads(1)


def race(folder, scratch, arms, prompt, used, calibration=()):
    """Every arm in turn: the opened models, and tokens per second of every round."""
    models, speeds = {}, {name: [] for name in arms}
    for number, (name, options) in enumerate(arms.items()):
        if "usage" in options:
            options = {**options, "usage": used}
        if "calibration" in options:
            options = {**options, "calibration": calibration}
        config = OffloadConfig(budget=SHARE, **options)
        models[name] = open_offloaded(folder, config, store=scratch / str(number))
    for round_ in range(ROUNDS + 1):
        for name, offloaded in models.items():
            speed = decode(offloaded.model, prompt)
            offloaded.engine.drain()
            if round_:
                speeds[name].append(speed)
    return models, speeds


def row(name, offloaded, speeds, loss):
    engine, exact = offloaded.engine, speeds["exact"]
    ratio = statistics.median(one / other for one, other in zip(speeds[name], exact, strict=True))
    mean = sum(engine.precision.pages_of) / len(engine.precision.pages_of)
    size, experts = engine.store.shape.num_bytes * mean, len(engine.precision.pages_of)
    fit = min(engine.capacity / mean, experts)
    words = f"{name:30}{human_bytes(size):>10}{fit:8.1f} of {experts:<4}{engine.ledger.hit_rate:8.3f}"
    words += f"{statistics.median(speeds[name]):9.1f}{ratio:8.2f}{max(speeds[name]) / max(exact):8.2f}"
    if loss is not None:
        words += f"{loss.kl:11.2e}{loss.loss_change:+10.5f}{loss.same_tokens:9.2%}"
    print(words + f"{engine.ledger.skipped:9,}")


@pytest.mark.parametrize("folder", [MODEL, UNBALANCED], ids=str)
def bench_formats_of_a_trained_model(tmp_path, folder):
    one_thread()
    if not folder.is_dir():
        print(f"\n{folder} is not there: run `make checkpoints` first")
        return
    resident, tokenizer = load(folder).eval(), load_tokenizer(tokenizer_folder(folder))
    held_out = tokens_of(tokenizer, "validation", TOKENS)
    calibration = tuple(tokens_of(tokenizer, "train", TOKENS))
    models, speeds = race(folder, tmp_path, ARMS, held_out[:32], usage(resident, tokenizer), calibration)
    print(
        f"\n{folder.name}, float32, cpu, {torch.get_num_threads()} threads, torch {torch.__version__}; budget {SHARE} "
        f"of the experts as they are, lru; {NEW} tokens after 32, {ROUNDS} rounds in turn; loss on {TOKENS}"
    )
    print(HEADER + f"{'KL':>11}{'loss':>10}{'same':>9}{'skipped':>9}")
    for name, offloaded in models.items():
        engine, hits = offloaded.engine, offloaded.engine.ledger.hit_rate
        loss = offloaded.measure_loss(lambda ids: resident(ids).logits, held_out)
        row(name, offloaded, speeds, loss)
        assert engine.ledger.requests and hits == hits
    for offloaded in models.values():
        offloaded.close()


def nearest(most):
    def replace(tensors, mean):
        for tensor in tensors:
            codes, scale = rounded(tensor, 64, most)
            scaled(codes.flatten(), scale, tensor, 64)

    return replace


def singular(bits):
    def replace(tensors, mean):
        for tensor in tensors:
            rank = max(int(bits * tensor.numel() / 16 / sum(tensor.shape)), 1)
            u, s, v = torch.linalg.svd(tensor, full_matrices=False)
            tensor.copy_((u[:, :rank] * s[:rank]).half().float() @ v[:rank].half().float())

    return replace


def formatted(spec, *, is_delta=False):
    form = spec.build(FORMATS)

    def replace(tensors, mean):
        base = mean if is_delta else [torch.zeros_like(tensor) for tensor in tensors]
        form.decode(form.encode([one - two for one, two in zip(tensors, base, strict=True)]).pages, tensors)
        for tensor, other in zip(tensors, base, strict=True):
            tensor.add_(other)

    return replace


@torch.no_grad()
def replaced(replace):
    model = load(MODEL).eval()
    for layer in model.moe_layers():
        stacks = layer.experts.tensors()
        means = [stack.mean(0) for stack in stacks]
        for expert in range(layer.experts.num_experts):
            replace([stack[expert] for stack in stacks], means)
    return model


def bench_loss_against_bytes():
    one_thread()
    if not MODEL.is_dir():
        print(f"\n{MODEL} is not there: run `make checkpoints` first")
        return
    resident, tokenizer = load(MODEL).eval(), load_tokenizer(tokenizer_folder(MODEL))
    held_out = tokens_of(tokenizer, "validation", TOKENS)
    matrices = [tensor[0].shape for tensor in next(resident.moe_layers()).experts.tensors()]
    weights = sum(rows * columns for rows, columns in matrices)

    def block_bits(rank):
        return 1 + 16 * rank * sum(sum(shape) for shape in matrices) / weights

    ways = {f"round to nearest, {bits} bits": (bits + 0.25, nearest(2 ** (bits - 1) - 1)) for bits in (2, 3, 4, 8)}
    ways |= {f"singular values, {bits} bits": (bits, singular(bits)) for bits in (2, 4, 8)}
    for rank, counts in ((1, (1, 2, 3, 4, 6)), (4, (1, 2, 4))):
        for levels in counts:
            spec = Spec("residual", {"levels": levels, "rank": rank})
            ways[f"{levels} residual blocks, rank {rank}"] = (levels * block_bits(rank), formatted(spec))
    # the mean itself is kept in half precision, once for all experts of a layer.
    own = 16 / next(resident.moe_layers()).experts.num_experts
    ways["delta to the mean expert, int4"] = (4.5 + own, formatted(Spec("int4"), is_delta=True))
    print(f"\n{MODEL.name}: loss against bytes, {len(held_out)} held-out tokens, weights in groups of 64 and 32 (int4)")
    print(f"{'':34}{'bits/weight':>12}{'KL':>11}{'loss':>10}{'same':>9}")
    for name, (bits, replace) in ways.items():
        model = replaced(replace)
        loss = loss_of_precision(lambda ids, one=model: one(ids).logits, lambda ids: resident(ids).logits, held_out)
        print(f"{name:34}{bits:12.3f}{loss.kl:11.2e}{loss.loss_change:+10.5f}{loss.same_tokens:9.2%}")


def bench_speed_of_large_experts(tmp_path):
    one_thread()
    save_model(initialise(Transformer(preset(SHAPE)), seed=0), tmp_path / "model")
    # the factors of residual blocks of this size take minutes to find.
    arms = {name: ARMS[name] for name in ("exact", "int8", "int4", "int4, 2 levels")}
    models, speeds = race(tmp_path / "model", tmp_path, arms, list(range(5, 13)), ())
    print(
        f"\n{SHAPE}, float32, random weights, cpu, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"budget {SHARE}, lru; {NEW} tokens after 8, {ROUNDS} rounds in turn; read {models['exact'].engine.store.way}"
    )
    print(HEADER + f"{'skipped':>9}")
    for name, offloaded in models.items():
        row(name, offloaded, speeds, None)
        offloaded.close()
