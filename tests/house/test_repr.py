"""Every object that a notebook shows has an HTML form of a few rows."""

import ast
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM
from workbench_kernels.bench import Case, Race
from workbench_kernels.bench.race import Result

from workbench.analysis.routing_diff import diff_routings
from workbench.core import Card, Output, Site, Spec, StepReport
from workbench.core.mixture import MergedRouting, SlotRouting
from workbench.core.sparse import SparseRouting
from workbench.data import Batches, ByteTokenizer, load_tokenizer, open_corpus
from workbench.model import KVCache, ModelConfig, Transformer
from workbench.model.recorded import Answer
from workbench.model.transformer import initialise
from workbench.offload.compute.host_compute import ComputeCost, HostRule
from workbench.offload.config import OffloadConfig
from workbench.offload.host import OffloadedHost, open_offloaded_host
from workbench.offload.model import OffloadedModel, offload_model
from workbench.offload.precision.lossy import PrecisionLoss
from workbench.offload.replay.cacheability import cacheability_of
from workbench.offload.replay.scene import Replay, replay
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost
from workbench.session import Session
from workbench.trace.synth import synthetic_trace
from workbench.train import SwapReport, TrainConfig
from workbench.train.results import Results
from workbench.view.gallery import Exhibit, Gallery

LARGEST_BYTES = 5_000


def config() -> ModelConfig:
    sizes = {"width": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    return ModelConfig(vocab_size=257, num_experts=4, expert_width=8, router=Spec("top_k"), **sizes)


def routing(num_tokens: int = 6) -> SparseRouting:
    expert = torch.arange(2 * num_tokens).reshape(num_tokens, 2) % 4
    return SparseRouting.from_topk(expert, torch.full((num_tokens, 2), 0.5), num_experts=4)


def output() -> Output:
    site = Site(layer=0, iteration=0, module="blocks.0.moe", router="top_k", routing=routing())
    return Output(logits=torch.zeros(1, 6, 257), sites=(site,) * 4)


def report() -> StepReport:
    numbers = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 512, "tokens_per_second": 1e4, "wall_seconds": 2.0}
    losses = {"aux_losses": {"balance": 1.0}, "aux_weights": {"balance": 0.01}}
    bits = {f"domain {index}": 2.5 for index in range(12)}
    return StepReport(step=3, loss=5.0, bits_per_byte=bits, **losses, **numbers)


def batches(folder: Path) -> Batches:
    corpus = open_corpus("token_remap")
    tokenizer = load_tokenizer(corpus.tokenizer)
    return Batches(corpus, tokenizer, batch_size=2, sequence_length=16, seed=0, cache_folder=folder)


def answer() -> Answer:
    text = {"prompt": "Once " * 200, "text": "<b>upon</b> " * 200, "settings": "greedy"}
    return Answer(num_tokens=50, seconds=0.5, trained_seconds=30.0, trace=synthetic_trace(num_tokens=8), **text)


def session() -> Session:
    return Session(model=config(), corpus="token_remap", batch_size=2, sequence_length=16)


def swap() -> SwapReport:
    fresh = tuple(f"blocks.{layer}.moe.router.gate.weight" for layer in range(8))
    return SwapReport(before="top_k", after="switch", carried=(), fresh=fresh, num_experts=8)


# One row per class of object: how to make one, of the size that a notebook shows, with an empty folder to use.
def exhibit() -> Exhibit:
    card = Card("A router", arxiv="1234.56789", year=2024)
    return Exhibit(name="x", card=card, sees_future=False, loss=2.0, pieces="abcdef", routing=routing())


def results() -> Results:
    cells = [{"router": name, "seed": 0, "bits_per_byte": {"a": 1.0}} for name in ("top_k", "switch")]
    return Results.of(cells, routers=["top_k", "switch"], seeds=[0], facts={"steps": 1})


def offloaded() -> OffloadedModel:
    return offload_model(initialise(Transformer(config()), 0), OffloadConfig(budget="100%"))


def offloaded_host(folder: Path) -> OffloadedHost:
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = MixtralConfig(vocab_size=32, num_local_experts=4, num_key_value_heads=1, **sizes)
    MixtralForCausalLM(shape).save_pretrained(folder)
    return open_offloaded_host(folder, OffloadConfig(budget=10**6))


def replayed() -> Replay:
    return replay(Requests.of_sets([[0, 1], [1, 2]]), policy=Spec("lru"), capacity=2)


INSTANCES: dict[str, Callable[[Path], object]] = {
    "Answer": lambda folder: answer(),
    "Batches": batches,
    "Cacheability": lambda folder: cacheability_of(synthetic_trace(), miss_seconds=0.01),
    "Corpus": lambda folder: open_corpus("token_remap"),
    "ExpertCache": lambda folder: offloaded().engine.loop.cache,
    "ExpertStore": lambda folder: offloaded().engine.store,
    "Gallery": lambda folder: Gallery([exhibit()], layer=0, steps=2),
    "HostRule": lambda folder: HostRule(
        expert_bytes=1,
        row_flops=1,
        link=LinkCost(bytes_per_second=1),
        host=ComputeCost(bytes_per_second=1, flops_per_second=1),
        device=ComputeCost(bytes_per_second=1, flops_per_second=1),
    ),
    "KVCache": lambda folder: KVCache(2),
    "Ledger": lambda folder: replayed().ledger,
    "LinkCost": lambda folder: LinkCost(bytes_per_second=1e9),
    "LiveRun": lambda folder: session().live,
    "MergedRouting": lambda folder: MergedRouting(
        num_experts=4, mixture=torch.full((1, 4), 0.25), group=torch.zeros(6).long()
    ),
    "ModelConfig": lambda folder: config(),
    "OffloadEngine": lambda folder: offloaded().engine,
    "OffloadedHost": offloaded_host,
    "OffloadedModel": lambda folder: offloaded(),
    "Output": lambda folder: output(),
    "PrecisionLoss": lambda folder: PrecisionLoss(
        kl=0.002, loss_change=0.001, exact_loss=3.0, same_tokens=0.99, tokens=4096
    ),
    "Race": lambda folder: Race(
        Case("a layer", 8, 16, 8, 4, 2),
        torch.float32,
        "cpu",
        False,
        {"workbench": Result((1.0,)), "other": Result((2.0,))},
    ),
    "Replay": lambda folder: replayed(),
    "Results": lambda folder: results(),
    "RoutingDiff": lambda folder: diff_routings([routing()], [routing()]).with_losses(2.0, 2.5),
    "Session": lambda folder: session(),
    "SlotRouting": lambda folder: SlotRouting(num_experts=4, dispatch=torch.rand(6, 4, 1), combine=torch.rand(6, 4, 1)),
    "SparseRouting": lambda folder: routing(),
    "StepReport": lambda folder: report(),
    "SwapReport": lambda folder: swap(),
    "Tokenizer": lambda folder: ByteTokenizer(),
    "TraceAccessor": lambda folder: synthetic_trace().moe,
    "TrainConfig": lambda folder: TrainConfig(),
    "Transformer": lambda folder: Transformer(config()),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_the_html_is_short_and_complete(name, tmp_path):
    shown = INSTANCES[name](tmp_path)._repr_html_()
    assert 0 < len(shown.encode()) < LARGEST_BYTES
    assert shown.count("<table") == shown.count("</table>")
    assert re.search("<table|<section", shown)
    assert "object at 0x" not in shown
    assert "<script" not in shown


def test_every_class_with_html_is_in_the_table(modules, tmp_path):
    classes = {
        (module.name, node.name)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(part, ast.FunctionDef) and part.name == "_repr_html_" for part in node.body)
    }
    made = [type(make(tmp_path)) for make in INSTANCES.values()]
    missing = [
        f"{module}.{name}"
        for module, name in sorted(classes)
        if not any(issubclass(cls, vars(importlib.import_module(module))[name]) for cls in made)
    ]
    assert missing == []


def test_text_from_outside_is_escaped():
    shown = SwapReport(before="<b>", after="a&b", carried=(), fresh=(), num_experts=1)._repr_html_()
    assert "<b>:" not in shown
    assert "&lt;b&gt;" in shown
