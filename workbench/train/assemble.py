"""From names to a trainer: everything is checked before anything is written."""

import json
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from workbench import __version__
from workbench.core.spec import Spec
from workbench.data.batches import Batches
from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import Tokenizer
from workbench.data.user_corpus import UserCorpus
from workbench.model.config import PRESETS, ModelConfig, preset
from workbench.model.folders import model_folder, tokenizer_folder
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import load
from workbench.trace.record import Recorder
from workbench.trace.store import TraceWriter
from workbench.train.arguments import check_router
from workbench.train.checkpoint import TrainState, read_checkpoint, repair, write_checkpoint
from workbench.train.config import TrainConfig
from workbench.train.micro_batch import try_losses
from workbench.train.optim import build_optimizer
from workbench.train.precision import precision_of
from workbench.train.run_folder import RunFolder
from workbench.train.swap import exchange_routers
from workbench.train.trainer import Trainer

__all__ = ["Request", "resume_training", "start_training"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for, in names.

    Args:
        model: a preset, a folder with a checkpoint, or a configuration.
        corpus: a registered corpus or a path to text.
        router: None keeps the model's own.
        tokenizer: None takes the checkpoint's, or the one that suits the corpus.
        device: None takes a GPU when there is one.
    """

    model: str | Path | ModelConfig = "tiny"
    corpus: str | Path = "mixed"
    router: str | Spec | None = None
    tokenizer: str | Path | None = None
    device: str | None = None

    def router_spec(self) -> Spec | None:
        """The router with its arguments, known to exist.

        Raises:
            LookupError: unknown router.
            ValueError: an argument that it does not take, or of another type.
        """
        if self.router is None:
            return None
        return check_router(Spec.parse(self.router) if isinstance(self.router, str) else self.router)

    def configuration(self) -> ModelConfig | None:
        """The shape of a new model; None when the model is opened from a folder.

        Raises:
            LookupError: neither a preset nor a folder.
            FileNotFoundError: a folder without a model.
        """
        if isinstance(self.model, ModelConfig):
            return self.model
        if str(self.model) in PRESETS or not Path(self.model).exists():
            return preset(str(self.model))
        model_folder(self.model)
        return None

    def folder(self) -> Path:
        """Where the model is opened from."""
        assert isinstance(self.model, str | Path), "a configuration is in no folder"
        return Path(self.model)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    model: Transformer
    tokenizer: Tokenizer
    batches: Batches


def start_training(request: Request, config: TrainConfig, *, folder: Path | None = None) -> Trainer:
    """A trainer at step 0.

    Args:
        folder: where checkpoints and trace go; None keeps everything in memory.

    Raises:
        LookupError: an unknown name.
        ValueError: arguments or files that do not fit; nothing was written.
        FileExistsError: the folder already holds something.
        OSError: the folder cannot be written; nothing is left behind.
    """
    if folder is None:
        parts = _build(request, config)
        device = _device(request.device)
        recorder = _recorder(parts.model, parts.batches, config, device, None)
        return Trainer(parts.model.to(device), parts.batches, config, recorder=recorder)
    # a run goes on from its first checkpoint as from any other, so that a killed one can always go on.
    _begin_run(RunFolder(folder), request, config)
    return resume_training(folder, device=request.device)


def resume_training(folder: Path, *, device: str | None = None) -> Trainer:
    """The trainer of a run, at its newest checkpoint.

    Raises:
        FileNotFoundError: no run in the folder.
        ValueError: a damaged file, or a corpus that has changed since.
        BlockingIOError: another process writes this run.
    """
    run, place = RunFolder(folder), _device(device)
    facts = run.facts()
    config = TrainConfig.from_json(facts["train"])
    batches = _batches(_same_corpus(facts, run), load_tokenizer(run.tokenizer), config)
    with ExitStack() as held:
        held.callback(run.lock().release)
        repair(run.checkpoints)
        newest = run.newest()
        try:
            model, state = read_checkpoint(newest)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"checkpoint {newest} cannot be read: {error}; {_way_out(run, newest)}") from error
        # before the first step a trace holds the probe at most, which is recorded anew.
        writer = TraceWriter(run.trace, resume_after=state.step or -1)
        held.callback(writer.close)
        recorder = _recorder(model, batches, config, place, writer)
        trainer = Trainer(model.to(place), batches, config, folder=run.checkpoints, recorder=recorder)
        trainer.restore(newest, state)
        trainer.held = held.pop_all()
    return trainer


def _build(request: Request, config: TrainConfig) -> _Parts:
    router, shape = request.router_spec(), request.configuration()
    corpus = open_corpus(request.corpus)
    if shape is not None:
        tokenizer = load_tokenizer(request.tokenizer or corpus.tokenizer)
        model = Transformer(replace(shape, vocab_size=tokenizer.vocab_size, router=router or shape.router))
        batches = _batches(corpus, tokenizer, config)
        return _tried(_Parts(model=initialise(model, config.seed), tokenizer=tokenizer, batches=batches), config)
    tokenizer = load_tokenizer(request.tokenizer or tokenizer_folder(request.folder()) or _bytes_for(request.folder()))
    model = load(request.folder(), dtype=torch.float32)
    _check_vocabulary(tokenizer, model.config)
    if router is not None:
        exchange_routers(model, router, config.seed)
    return _tried(_Parts(model=model, tokenizer=tokenizer, batches=_batches(corpus, tokenizer, config)), config)


def _tried(parts: _Parts, config: TrainConfig) -> _Parts:
    precision = precision_of(parts.model.device, config.dtype)
    try_losses(parts.model, parts.batches.batch(0), precision, config, 0)
    return parts


def _begin_run(run: RunFolder, request: Request, config: TrainConfig) -> None:
    run.check_free()
    parts = _build(request, config)
    with run.begun(_facts(request, parts, config)) as new:
        parts.tokenizer.save(new.tokenizer)
        first = new.checkpoints / "step_00000000"
        write_checkpoint(first, parts.model, build_optimizer(parts.model, config), TrainState())


def _batches(corpus: Corpus, tokenizer: Tokenizer, config: TrainConfig) -> Batches:
    return Batches(
        corpus, tokenizer, batch_size=config.batch_size, sequence_length=config.sequence_length, seed=config.seed
    )


def _same_corpus(facts: dict[str, Any], run: RunFolder) -> Corpus:
    corpus = open_corpus(facts["corpus"])
    if corpus.fingerprint != facts["corpus_fingerprint"]:
        raise ValueError(
            f"corpus {facts['corpus']} has changed since run {run.path} began; the run cannot go on as it was: "
            "restore the text, or start a new run"
        )
    return corpus


def _way_out(run: RunFolder, newest: Path) -> str:
    older = run.older(newest)
    if older is None:
        return "there is no older one; start the run anew in another folder"
    return f"remove {newest} and resume again, to go on from {older}"


def _device(name: str | None) -> torch.device:
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _bytes_for(folder: Path) -> str:
    warnings.warn(
        f"{folder} holds no tokenizer.json, so text is read byte by byte, which is not what the model was "
        "trained on; put its tokenizer beside the weights, or pass tokenizer=",
        stacklevel=2,
    )
    return "byte"


def _check_vocabulary(tokenizer: Tokenizer, config: ModelConfig) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, the model's vocabulary only "
            f"{config.vocab_size}; pass the tokenizer that the model was trained with"
        )


def _facts(request: Request, parts: _Parts, config: TrainConfig) -> dict[str, Any]:
    corpus = parts.batches.corpus
    own_text = isinstance(corpus, UserCorpus)
    return {
        "model": str(request.model) if isinstance(request.model, str | Path) else "a configuration",
        "shape": parts.model.config.to_json(),
        "corpus": str(Path(request.corpus).expanduser().resolve() if own_text else request.corpus),
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer": parts.tokenizer.name,
        "train": config.to_json(),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"workbench": __version__, "torch": str(torch.__version__)},
    }


def _recorder(
    model: Transformer, batches: Batches, config: TrainConfig, device: torch.device, writer: TraceWriter | None
) -> Recorder:
    attrs = {
        "model": json.dumps(model.config.to_json()),
        "parameters": model.num_parameters(),
        "corpus": batches.corpus.name,
        "tokenizer": batches.tokenizer.name,
        "seed": config.seed,
        "device": str(device),
        "dtype": str(precision_of(device, config.dtype).dtype).removeprefix("torch."),
        "train": json.dumps(config.to_json()),
    }
    return Recorder(writer, attrs=attrs, decode_piece=batches.tokenizer.piece)
