"""What each command of the command line does."""

import inspect
import json
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.core.check import at_least
from workbench.core.records import StepReport
from workbench.core.units import human_count, human_seconds
from workbench.data.catalog import corpus_names, open_corpus
from workbench.data.tokenizer import Tokenizer
from workbench.doctor import examine
from workbench.host_command import generate_with_host
from workbench.model.config import PRESETS, preset
from workbench.model.generate import Sampling
from workbench.model.recorded import Answer, write_text
from workbench.model.transformer import Transformer
from workbench.model.weights import load
from workbench.offload.listing import caching_rows
from workbench.offload.options import option_rows
from workbench.offload.policies import POLICIES
from workbench.offload.prefetch import PREFETCHERS
from workbench.opening import is_trace, needs_host, open_tokenizer, record_file
from workbench.routers import ROUTERS
from workbench.session import TEMPERATURE, TOP_P, Session
from workbench.terminal import say, write
from workbench.trace.files import open_trace, save_trace
from workbench.train.config import TrainConfig
from workbench.train.finite import NonFiniteLossError
from workbench.train.run_folder import RunFolder
from workbench.view.report import write_report
from workbench.view.samples import samples_of

__all__ = [
    "MISTAKES",
    "demo",
    "examine",
    "generate",
    "listing",
    "report",
    "resume",
    "trace",
    "train",
]

MISTAKES = (
    ValueError,
    LookupError,
    OSError,
    ModuleNotFoundError,
    MemoryError,
    NonFiniteLossError,
    torch.OutOfMemoryError,
)
"""What a person's mistake, a damaged file, a full disk or a small machine raises; all else is a bug."""

_DEMO_PROMPTS = ("def ", "The ", "int main(", "Der ")
# a router whose arguments decide whether it is causal is asked in its default form.
_WIDTH, _EXPERTS = 64, 8


def demo(*, out: Path | None, steps: int, seed: int) -> None:
    """Train `tiny`, exchange its router half way, write texts and a report."""
    folder = out or _new_folder("demo")
    config = TrainConfig(seed=seed, num_steps=steps, evaluate_every=max(1, steps // 4), checkpoint_every=100)
    with Session(model="tiny", router="switch", folder=folder, config=config) as session:
        say(f"training {human_count(session.model.num_parameters())} parameters on corpus {session.corpus.name!r}")
        _last(session.train(steps // 2))
        say(f"step {session.trainer.step}: {session.swap_router('top_k')}")
        last = _last(session.train(steps - steps // 2))
        answers = [session.ask(prompt, max_new_tokens=60, seed=seed) for prompt in _DEMO_PROMPTS]
        path = session.report(RunFolder(folder).report, title="MoE Workbench demo")
    _show_demo(session, last, answers)
    say(f"report: {path.resolve()}")


def train(*, request: Mapping[str, Any], settings: Mapping[str, Any], steps: int, out: Path | None) -> None:
    """Train a new run up to a step."""
    TrainConfig.check(settings)
    at_least("steps", steps, 0)
    folder = out or _new_folder("run")
    with Session(**request, folder=folder, config=TrainConfig(**settings)) as session:
        _train_to(session, steps, folder)


def resume(folder: Path, *, steps: int) -> None:
    """Go on with a run up to a step."""
    with Session.resume(folder) as session:
        if session.trainer.step >= steps:
            say(f"{folder} is at step {session.trainer.step} already; --steps counts from the beginning of the run")
            return
        say(f"resuming {folder} at step {session.trainer.step}")
        _train_to(session, steps, folder)


def generate(
    folder: Path, text: str, *, max_new_tokens: int, temperature: float | None, stop: tuple[str, ...], seed: int
) -> None:
    """Continue a text, printing it as it is written."""
    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=TEMPERATURE if temperature is None else temperature, top_p=TOP_P
    )
    if needs_host(folder):
        generate_with_host(folder, text, sampling, offload=None, stop=stop, seed=seed)
        return
    model, tokenizer = _opened(folder)
    if not model.is_causal:
        say(f"{model.config.router.name} sees later tokens: the prefix is routed anew for every token")
    write(text)
    write_text(model, tokenizer, text, sampling, stop=stop, seed=seed, on_text=write)
    write("\n")


def trace(folder: Path, *, text: Path, out: Path) -> None:
    """Record the routing of a text file, window after window."""
    if not is_trace(out) or out.is_dir():
        raise ValueError(f"--out must be a free path that ends in .zarr, .zarr.zip, .nc; got {out}")
    save_trace(record_file(folder, text, tell=say), out)
    say(f"trace: {out.resolve()}")


def report(folder: Path, *, out: Path | None) -> None:
    """Write the report of a run."""
    run = RunFolder(folder)
    run.facts()
    trace, title = open_trace(run.trace), f"Run {folder.resolve().name}"
    path = write_report(trace, out or run.report, title=title, samples=samples_of(run))
    say(f"report: {path.resolve()}")


def listing(what: str) -> list[dict[str, Any]]:
    """Names that can be used, with what they are."""
    rows: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "routers": _routers,
        "presets": _presets,
        "corpora": _corpora,
        "policies": partial(caching_rows, POLICIES),
        "prefetchers": partial(caching_rows, PREFETCHERS),
        "offload": option_rows,
    }
    return rows[what]()


def _routers() -> list[dict[str, Any]]:
    rows = []
    for name in ROUTERS.names():
        router = ROUTERS.get(name)
        parameters = inspect.signature(router).parameters.values()
        own = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "layer"]
        arguments = {p.name: p.default for p in own}
        rows.append(
            {"name": name, **asdict(router.card), "causal": router(_WIDTH, _EXPERTS).causal, "arguments": arguments}
        )
    return rows


def _presets() -> list[dict[str, Any]]:
    rows = []
    for name in PRESETS:
        config = preset(name)
        with torch.device("meta"):
            parameters = Transformer(config).num_parameters()
        rows.append({"name": name, "parameters": parameters, **config.to_json()})
    return rows


def _corpora() -> list[dict[str, Any]]:
    rows = []
    for name in corpus_names():
        corpus = open_corpus(name)
        rows.append(
            {
                "name": name,
                "title": corpus.card.title,
                "bytes": sum(corpus.card.bytes.values()),
                "domains": list(corpus.domains),
                "licence": corpus.card.licence,
                "is_synthetic": corpus.card.is_synthetic,
            }
        )
    return rows


def _train_to(session: Session, steps: int, folder: Path) -> None:
    trainer = session.trainer
    session.live.kind = "command line"
    session.live.open()
    say(f"{human_count(session.model.num_parameters())} parameters, router {session.model.config.router}, in {folder}")
    try:
        last = _last(session.train(steps - trainer.step))
    except KeyboardInterrupt:
        say(f"stopped at step {trainer.step}; go on: workbench train --resume {folder} --steps {steps}")
        raise
    if last is not None:
        seconds = human_seconds(session.trainer.state.trained_seconds)
        say(f"step {last.step}: loss {last.loss:.4f} nat/token after {human_count(last.tokens)} tokens and {seconds}")


def _last(reports: Iterator[StepReport]) -> StepReport | None:
    newest = deque(reports, maxlen=1)
    return newest.pop() if newest else None


def _opened(folder: Path) -> tuple[Transformer, Tokenizer]:
    model = load(folder).eval()
    tokenizer, words = open_tokenizer(folder, model.config.vocab_size)
    say(words)
    return model, tokenizer


def _new_folder(kind: str) -> Path:
    return Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def _show_demo(session: Session, last: StepReport | None, answers: list[Answer]) -> None:
    console = Console(file=sys.stdout, width=100, highlight=False)
    facts = Table(title="what was trained", show_header=False)
    facts.add_row("router", str(session.model.config.router))
    facts.add_row("time", human_seconds(session.trainer.state.trained_seconds))
    if last is not None:
        facts.add_row("steps, tokens", f"{last.step}, {human_count(last.tokens)}")
        facts.add_row("training loss, nat per token", f"{last.loss:.3f}")
        for domain, value in last.bits_per_byte.items():
            facts.add_row(f"held-out {domain}, bit per byte", f"{value:.3f}")
    console.print(facts)
    texts = Table(title=f"texts by a model of {human_seconds(session.trainer.state.trained_seconds)}")
    texts.add_column("prompt")
    texts.add_column("continued")
    for answer in answers:
        texts.add_row(Text(json.dumps(answer.prompt)), Text(_one_line(answer.text)), end_section=True)
    console.print(texts)


def _one_line(text: str) -> str:
    # a model of seconds likes empty lines; the report shows the text as it is.
    return textwrap.shorten(text.replace("\n", " ⏎ "), 240, placeholder=" ...")
