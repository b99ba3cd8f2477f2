"""What each command of the command line does."""

import inspect
import json
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.core.check import at_least
from workbench.core.records import StepReport
from workbench.core.units import human_count, human_seconds
from workbench.data.catalog import corpus_names, load_tokenizer, open_corpus
from workbench.data.tokenizer import Tokenizer
from workbench.doctor import examine
from workbench.model.config import PRESETS, preset
from workbench.model.folders import tokenizer_folder
from workbench.model.generate import Sampling
from workbench.model.recorded import Answer, record_text, write_text
from workbench.model.transformer import Transformer
from workbench.model.weights import load
from workbench.routers import ROUTERS
from workbench.session import TEMPERATURE, TOP_P, Session
from workbench.trace.files import open_trace, save_trace
from workbench.trace.record import Recorder
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
_TRACE_ENDINGS = (".zarr", ".zarr.zip", ".nc")
_WINDOW = 1024
# a router whose arguments decide whether it is causal is asked in its default form.
_WIDTH, _EXPERTS = 64, 8


def demo(*, out: Path | None, steps: int, seed: int) -> None:
    """Train `tiny`, exchange its router half way, write texts and a report."""
    folder = out or _new_folder("demo")
    config = TrainConfig(seed=seed, num_steps=steps, evaluate_every=max(1, steps // 4), checkpoint_every=100)
    with Session(model="tiny", router="switch", folder=folder, config=config) as session:
        _say(f"training {human_count(session.model.num_parameters())} parameters on corpus {session.corpus.name!r}")
        _last(session.train(steps // 2))
        _say(f"step {session.trainer.step}: {session.swap_router('top_k')}")
        last = _last(session.train(steps - steps // 2))
        answers = [session.ask(prompt, max_new_tokens=60, seed=seed) for prompt in _DEMO_PROMPTS]
        path = session.report(RunFolder(folder).report, title="MoE Workbench demo")
    _show_demo(session, last, answers)
    _say(f"report: {path.resolve()}")


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
            _say(f"{folder} is at step {session.trainer.step} already; --steps counts from the beginning of the run")
            return
        _say(f"resuming {folder} at step {session.trainer.step}")
        _train_to(session, steps, folder)


def generate(
    folder: Path, text: str, *, max_new_tokens: int, temperature: float | None, stop: tuple[str, ...], seed: int
) -> None:
    """Continue a text, printing it as it is written."""
    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=TEMPERATURE if temperature is None else temperature, top_p=TOP_P
    )
    model, tokenizer = _opened(folder)
    if not model.is_causal:
        _say(f"{model.config.router.name} sees later tokens: the prefix is routed anew for every token")
    _write(text)
    write_text(model, tokenizer, text, sampling, stop=stop, seed=seed, on_text=_write)
    _write("\n")


def trace(folder: Path, *, text: Path, out: Path) -> None:
    """Record the routing of a text file, window after window."""
    if not out.name.endswith(_TRACE_ENDINGS) or out.is_dir():
        raise ValueError(f"--out must be a free path that ends in {', '.join(_TRACE_ENDINGS)}; got {out}")
    words = _read_text(text)
    model, tokenizer = _opened(folder)
    token_ids = tokenizer.encode(words)
    if not token_ids:
        raise ValueError(f"{text} is empty; give a file with at least one token")
    attrs = {"model": json.dumps(model.config.to_json()), "tokenizer": tokenizer.name, "source": text.name}
    recorder = Recorder(attrs=attrs, decode_piece=tokenizer.piece)
    window = min(_WINDOW, model.config.max_positions)
    for step, first in enumerate(range(0, len(token_ids), window)):
        record_text(model, tokenizer, token_ids[first : first + window], recorder, step=step)
    save_trace(recorder.trace(), out)
    _say(f"{len(token_ids)} tokens in windows of {window}: {out.resolve()}")


def report(folder: Path, *, out: Path | None) -> None:
    """Write the report of a run."""
    run = RunFolder(folder)
    run.facts()
    trace, title = open_trace(run.trace), f"Run {folder.resolve().name}"
    path = write_report(trace, out or run.report, title=title, samples=samples_of(run))
    _say(f"report: {path.resolve()}")


def listing(what: str) -> list[dict[str, Any]]:
    """Names that can be used, with what they are."""
    return {"routers": _routers, "presets": _presets, "corpora": _corpora}[what]()


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
    _say(f"{human_count(session.model.num_parameters())} parameters, router {session.model.config.router}, in {folder}")
    try:
        last = _last(session.train(steps - trainer.step))
    except KeyboardInterrupt:
        _say(f"stopped at step {trainer.step}; go on: workbench train --resume {folder} --steps {steps}")
        raise
    if last is not None:
        seconds = human_seconds(session.trained_seconds)
        _say(f"step {last.step}: loss {last.loss:.4f} nat/token after {human_count(last.tokens)} tokens and {seconds}")


def _last(reports: Iterator[StepReport]) -> StepReport | None:
    newest = deque(reports, maxlen=1)
    return newest.pop() if newest else None


def _opened(folder: Path) -> tuple[Transformer, Tokenizer]:
    model = load(folder).eval()
    own = tokenizer_folder(folder)
    if own is not None:
        return model, load_tokenizer(own)
    tokenizer = load_tokenizer("byte")
    if model.config.vocab_size < tokenizer.vocab_size:
        raise ValueError(f"{folder} holds no tokenizer.json, and its vocabulary is too small for bytes; add one")
    _say(f"{folder} holds no tokenizer.json: text is read byte by byte, not as the model was trained")
    return model, tokenizer


def _read_text(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text; byte {error.start} is not: convert it first") from error
    if "\0" in words:
        raise ValueError(f"{path} must be text; it holds a NUL character, as binary files do")
    return words


def _new_folder(kind: str) -> Path:
    return Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def _show_demo(session: Session, last: StepReport | None, answers: list[Answer]) -> None:
    console = Console(file=sys.stdout, width=100, highlight=False)
    facts = Table(title="what was trained", show_header=False)
    facts.add_row("router", str(session.model.config.router))
    facts.add_row("time", human_seconds(session.trained_seconds))
    if last is not None:
        facts.add_row("steps, tokens", f"{last.step}, {human_count(last.tokens)}")
        facts.add_row("training loss, nat per token", f"{last.loss:.3f}")
        for domain, value in last.bits_per_byte.items():
            facts.add_row(f"held-out {domain}, bit per byte", f"{value:.3f}")
    console.print(facts)
    texts = Table(title=f"texts by a model of {human_seconds(session.trained_seconds)}")
    texts.add_column("prompt")
    texts.add_column("continued")
    for answer in answers:
        texts.add_row(Text(json.dumps(answer.prompt)), Text(_one_line(answer.text)), end_section=True)
    console.print(texts)


def _one_line(text: str) -> str:
    # a model of seconds likes empty lines; the report shows the text as it is.
    return textwrap.shorten(text.replace("\n", " ⏎ "), 240, placeholder=" ...")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
