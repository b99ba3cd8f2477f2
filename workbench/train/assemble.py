"""From names to a trainer: everything is checked before anything is built."""

import json
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from workbench import __version__
from workbench.core.registry import Registry
from workbench.core.spec import Spec
from workbench.data.batches import Batches
from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import Tokenizer
from workbench.model.config import PRESETS, ModelConfig, preset
from workbench.model.transformer import Transformer, initialise
from workbench.model.folders import model_folder, tokenizer_folder
from workbench.model.weights import load
from workbench.routers import ROUTERS
from workbench.trace.store import TraceWriter
from workbench.trace.record import Recorder
from workbench.train.checkpoint import read_checkpoint
from workbench.train.config import TrainConfig
from workbench.train.precision import precision_of
from workbench.train.run_folder import RunFolder
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

    @property
    def router_spec(self) -> Spec | None:
        """The router with its arguments, known to exist.

        Raises:
            LookupError: unknown router.
            ValueError: an argument that it does not take.
        """
        return None if self.router is None else checked(self.router, ROUTERS)

    @property
    def torch_device(self) -> torch.device:
        """The device that the model goes to."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def checked(wanted: str | Spec, registry: Registry) -> Spec:
    """A spec whose name and arguments the registry knows."""
    spec = Spec.parse(wanted) if isinstance(wanted, str) else wanted
    spec.check(registry)
    return spec


def start_training(request: Request, config: TrainConfig, *, folder: Path | None = None) -> Trainer:
    """A trainer at step 0.

    Args:
        folder: where checkpoints and trace go; None keeps everything in memory.

    Raises:
        LookupError: an unknown name.
        ValueError: arguments or files that do not fit; nothing was built.
        FileExistsError: the folder already holds a run.
    """
    router = request.router_spec
    checkpoint = _checkpoint_path(request.model)
    shape = None if checkpoint else _configuration(request.model)
    corpus = open_corpus(request.corpus)
    tokenizer = _tokenizer(request, corpus, checkpoint)
    if shape is not None:
        shape = replace(shape, vocab_size=tokenizer.vocab_size, router=router or shape.router)
        model = initialise(Transformer(shape), config.seed)
    else:
        model = load(str(checkpoint), dtype=torch.float32)
        _check_vocabulary(tokenizer, model.config)
        if router is not None:
            _change_router(model, router, config.seed)
    run = None if folder is None else RunFolder(folder)
    if run is not None:
        run.start(_facts(request, model, corpus, tokenizer, config))
        tokenizer.save(run.tokenizer)
    return _trainer(model.to(request.torch_device), corpus, tokenizer, config, run)


def resume_training(folder: Path, *, device: str | None = None) -> Trainer:
    """The trainer of a run, at its newest checkpoint; at step 0 if it was stopped before the first.

    Raises:
        FileNotFoundError: no run in the folder.
        ValueError: a damaged file, or a corpus that has changed since.
    """
    run = RunFolder(folder)
    facts = run.facts()
    config = TrainConfig.from_json(facts["train"])
    tokenizer = load_tokenizer(run.tokenizer)
    corpus = open_corpus(facts["corpus"])
    if corpus.fingerprint != facts["corpus_fingerprint"]:
        raise ValueError(
            f"corpus {facts['corpus']} has changed since run {folder} began; the run cannot go on as it was: "
            "restore the text, or start a new run"
        )
    request = Request(model=_model_of(facts), corpus=facts["corpus"], device=device)
    newest = run.newest()
    if newest is None:
        model = _first_model(request, facts, config.seed)
        trainer = _trainer(model.to(request.torch_device), corpus, tokenizer, config, run)
        trainer.forget_after(0)
        return trainer
    model, state = read_checkpoint(newest)
    trainer = _trainer(model.to(request.torch_device), corpus, tokenizer, config, run)
    trainer.restore(newest, state)
    return trainer


def _checkpoint_path(model: str | Path | ModelConfig) -> Path | None:
    if isinstance(model, ModelConfig) or str(model) in PRESETS:
        return None
    if not Path(model).exists():
        preset(str(model))
    model_folder(Path(model))
    return Path(model)


def _configuration(model: str | Path | ModelConfig) -> ModelConfig:
    return model if isinstance(model, ModelConfig) else preset(str(model))


def _tokenizer(request: Request, corpus: Corpus, checkpoint: Path | None) -> Tokenizer:
    if request.tokenizer is not None:
        return load_tokenizer(request.tokenizer)
    if checkpoint is None:
        return load_tokenizer(corpus.tokenizer)
    own = tokenizer_folder(checkpoint)
    if own is not None:
        return load_tokenizer(own)
    warnings.warn(
        f"{checkpoint} holds no tokenizer.json, so text is read byte by byte, which is not what the model was "
        "trained on; put its tokenizer beside the weights, or pass tokenizer=",
        stacklevel=4,
    )
    return load_tokenizer("byte")


def _check_vocabulary(tokenizer: Tokenizer, config: ModelConfig) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, the model's vocabulary only "
            f"{config.vocab_size}; pass the tokenizer that the model was trained with"
        )


def _change_router(model: Transformer, router: Spec, seed: int) -> None:
    old = model.state_dict()
    model.set_router(router, seed)
    own = model.state_dict()
    kept = {name: old[name] for name in own if name in old and old[name].shape == own[name].shape}
    model.load_state_dict(kept, strict=False)


def _model_of(facts: dict[str, Any]) -> str | Path | ModelConfig:
    opened = facts["opened"]
    return ModelConfig.from_json(facts["model"]) if opened is None else Path(opened)


def _first_model(request: Request, facts: dict[str, Any], seed: int) -> Transformer:
    if isinstance(request.model, ModelConfig):
        return initialise(Transformer(request.model), seed)
    model = load(str(request.model), dtype=torch.float32)
    _change_router(model, Spec.from_json(facts["model"]["router"]), seed)
    return model


def _facts(
    request: Request, model: Transformer, corpus: Corpus, tokenizer: Tokenizer, config: TrainConfig
) -> dict[str, Any]:
    checkpoint = _checkpoint_path(request.model)
    return {
        "model": model.config.to_json(),
        "model_name": request.model if isinstance(request.model, str) else "configuration",
        "opened": None if checkpoint is None else str(checkpoint.resolve()),
        "corpus": str(request.corpus),
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer": tokenizer.name,
        "train": config.to_json(),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"workbench": __version__, "torch": str(torch.__version__)},
    }


def _trainer(
    model: Transformer, corpus: Corpus, tokenizer: Tokenizer, config: TrainConfig, run: RunFolder | None
) -> Trainer:
    batches = Batches(
        corpus, tokenizer, batch_size=config.batch_size, sequence_length=config.sequence_length, seed=config.seed
    )
    writer = None if run is None else TraceWriter(run.trace)
    attrs = {
        "model": json.dumps(model.config.to_json()),
        "parameters": model.num_parameters(),
        "corpus": corpus.name,
        "tokenizer": tokenizer.name,
        "seed": config.seed,
        "device": str(model.device),
        "dtype": str(precision_of(model.device, config.dtype).dtype).removeprefix("torch."),
        "train": json.dumps(config.to_json()),
    }
    recorder = Recorder(writer, attrs=attrs, decode_piece=tokenizer.piece)
    return Trainer(
        model, batches, config, folder=None if run is None else run.checkpoints, recorder=recorder
    )
