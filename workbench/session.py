"""The notebook facade: one object that trains, swaps routers, records, answers and shows."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch

from workbench.core.context import RouteContext
from workbench.core.html import facts
from workbench.core.records import Batch, StepReport
from workbench.core.spec import Spec
from workbench.core.units import human_count, human_seconds
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import Tokenizer
from workbench.model.config import ModelConfig
from workbench.model.generate import Sampling
from workbench.model.text import stream_text
from workbench.model.transformer import Transformer
from workbench.model.weights import export_hugging_face
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.config import TrainConfig
from workbench.train.progress import with_progress
from workbench.train.swap import SwapReport
from workbench.train.trainer import Trainer
from workbench.view.report import TextSample, write_report

__all__ = ["Answer", "Session"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A text that the model wrote, and how.

    Args:
        text: what follows the prompt.
        trained_seconds: how long the model had been trained [s].
        trace: routing of the prompt and of every new token.
    """

    prompt: str
    text: str
    num_tokens: int
    seconds: float
    settings: str
    trained_seconds: float
    trace: Trace = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        speed = f"{self.num_tokens} tokens at {self.num_tokens / max(self.seconds, 1e-9):.0f} tokens/s"
        note = f"written by a model trained for {human_seconds(self.trained_seconds)}; {self.settings}"
        return facts("Answer", {"prompt": self.prompt, "text": self.text, "speed": speed}, note=note)


@final
class Session:
    """Train a model and watch it; every method delegates to the part that does the work.

    Args:
        model: a preset (`tiny`, `small`, `base`), a folder with a checkpoint, or a configuration.
        corpus: a registered corpus, or a path to text of your own.
        router: a registered name, with arguments as `top_k:top_k=4`; None keeps the model's own.
        tokenizer: None takes the checkpoint's, or the one that suits the corpus.
        folder: where checkpoints and trace are written; None keeps everything in memory.
        config: every training option; `seed`, `batch_size` and `sequence_length` are short for its fields.

    Raises:
        LookupError: an unknown name; the message lists those that exist.
        ValueError: arguments that do not fit; nothing was built.

    Example:
        >>> session = Session(model="tiny", corpus="mixed", router="top_k", seed=0)
        >>> for report in session.train(steps=200): ...
        >>> session.swap_router("switch")
    """

    def __init__(
        self,
        *,
        model: str | Path | ModelConfig = "tiny",
        corpus: str | Path = "mixed",
        router: str | Spec | None = None,
        tokenizer: str | Path | None = None,
        folder: str | Path | None = None,
        config: TrainConfig | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        sequence_length: int | None = None,
    ):
        short = {"seed": seed, "batch_size": batch_size, "sequence_length": sequence_length}
        config = replace(config or TrainConfig(), **{k: v for k, v in short.items() if v is not None})
        request = Request(model=model, corpus=corpus, router=router, tokenizer=tokenizer)
        self._begin(start_training(request, config, folder=None if folder is None else Path(folder)))

    @classmethod
    def resume(cls, folder: str | Path) -> "Session":
        """The session of a run on disk, at its newest checkpoint.

        Raises:
            FileNotFoundError: no run in the folder.
            ValueError: a damaged file, or a corpus that has changed since.
        """
        session = cls.__new__(cls)
        session._begin(resume_training(Path(folder)))
        return session

    def _begin(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.samples: list[TextSample] = []

    @property
    def model(self) -> Transformer:
        """The model, as it is now."""
        return self.trainer.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run."""
        return self.trainer.batches.tokenizer

    @property
    def corpus(self) -> Corpus:
        """The corpus of the run."""
        return self.trainer.batches.corpus

    @property
    def trace(self) -> Trace:
        """Everything recorded so far."""
        return self._recorder.trace()

    @property
    def trained_seconds(self) -> float:
        """How long the model has been trained [s], evaluation included."""
        return self.trainer.trained_seconds

    def train(self, steps: int, *, progress: bool = True) -> Iterator[StepReport]:
        """Train so many more steps; a report after each. Stop by leaving the loop, go on by calling again.

        Raises:
            NonFiniteLossError: the loss is no number any more; the model is as it was before that step.
        """
        reports = self.trainer.run(steps)
        return with_progress(reports, steps) if progress else reports

    def swap_router(self, name: str, **arguments: Any) -> SwapReport:
        """Another router in every MoE layer; experts stay, and gate weights where shapes agree.

        Args:
            name: a registered router; its arguments follow by name.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit; the old router stays.
        """
        return self.trainer.swap(Spec.parse(name) if not arguments else Spec(name, arguments))

    def record(self, text: str) -> Trace:
        """The routing of a fixed text under the model as it is now, in all layers.

        Raises:
            ValueError: an empty text.
        """
        token_ids = self.tokenizer.encode(text)
        if not token_ids:
            raise ValueError("record needs at least one token of text, got an empty text")
        batch = Batch(token_ids=torch.tensor([token_ids], device=self.model.device))
        with torch.no_grad():
            output = self.model(batch.token_ids, context=RouteContext(phase="prefill", seed=self.trainer.config.seed))
        recorder = self._new_recorder()
        recorder.add(batch, output, phase="prefill", step=self.trainer.step)
        return recorder.trace()

    def ask(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 50,
        temperature: float = 0.8,
        top_p: float = 0.95,
        stop: Sequence[str] = (),
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """The model's continuation of a prompt.

        With a router that sees later tokens, the whole prefix is routed again for every token, and the
        answer says so.

        Args:
            temperature: 0 takes the most probable token.
            on_text: called with each piece of text as it is written.

        Raises:
            ValueError: sampling values out of range.
        """
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
        recompute = not self.model.is_causal
        began, pieces, count, recorder = time.perf_counter(), [], 0, self._new_recorder()
        steps = stream_text(
            self.model, self.tokenizer, [prompt], sampling, stop=stop, seed=seed, recompute=recompute
        )
        for step in steps:
            pieces.append(step.new[0])
            if on_text is not None and step.new[0]:
                on_text(step.new[0])
            if step.generated is not None:
                count += 1
                if count == 1 or not recompute:
                    done = step.generated
                    recorder.add(done.batch, done.output, phase=done.phase, step=self.trainer.step)
        settings = f"temperature {temperature}, top-p {top_p}, seed {seed}"
        if recompute:
            settings += f"; {self.model.config.router.name} sees later tokens, so the prefix was routed anew each time"
        answer = Answer(
            prompt=prompt,
            text="".join(pieces),
            num_tokens=count,
            seconds=time.perf_counter() - began,
            settings=settings,
            trained_seconds=self.trained_seconds,
            trace=recorder.trace(),
        )
        self.samples.append(
            TextSample(prompt=prompt, text=answer.text, settings=settings, trained_seconds=answer.trained_seconds)
        )
        return answer

    def evaluate(self) -> dict[str, float]:
        """Held-out loss per domain [bit/byte]."""
        return self.trainer.evaluate()

    def report(self, path: str | Path, *, title: str = "MoE Workbench run") -> Path:
        """One HTML page with the curves, the load, the tokens and the texts; opens offline."""
        return write_report(self.trace, path, title=title, samples=self.samples)

    def export(self, folder: str | Path) -> Path:
        """A Hugging Face folder of the model and its tokenizer.

        Raises:
            ValueError: the architecture is none of the four families; the message says what does not fit.
        """
        target = Path(folder)
        export_hugging_face(self.model, target)
        self.tokenizer.save(target)
        return target

    def close(self) -> None:
        """Write what is pending and let go of the run's files; the model stays usable."""
        self.trainer.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: object) -> None:
        self._recorder.close()

    @property
    def _recorder(self) -> Recorder:
        assert self.trainer.recorder is not None, "sessions always record"
        return self.trainer.recorder

    def _new_recorder(self) -> Recorder:
        attrs = {"model": json.dumps(self.model.config.to_json()), "tokenizer": self.tokenizer.name}
        return Recorder(attrs=attrs, decode_piece=self.tokenizer.piece)

    def _repr_html_(self) -> str:
        rows = {
            "model": f"{human_count(self.model.num_parameters())} parameters, {self.model.config.num_layers} blocks",
            "router": str(self.model.config.router),
            "corpus": f"{self.corpus.name}: {', '.join(self.corpus.domains)}",
            "step": self.trainer.step,
            "tokens seen": human_count(self.trainer.tokens),
            "products in": f"{self.trainer.precision.dtype}, because {self.trainer.precision.reason}",
        }
        return facts("Session", rows, note=f"trained for {human_seconds(self.trained_seconds)}")
