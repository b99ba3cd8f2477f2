"""The notebook facade: one object that trains, swaps routers, records, answers and shows."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, final

from workbench.core.html import facts
from workbench.core.records import StepReport
from workbench.core.spec import Spec
from workbench.core.units import human_count, human_seconds
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import Tokenizer
from workbench.model.config import ModelConfig
from workbench.model.generate import Sampling
from workbench.model.recorded import Answer, record_text, write_text
from workbench.model.transformer import Transformer
from workbench.model.weights import export_hugging_face
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.config import TrainConfig
from workbench.train.progress import with_progress
from workbench.train.run_folder import RunFolder
from workbench.train.swap import SwapReport
from workbench.train.trainer import Trainer
from workbench.train.watch import Watch, watch_of
from workbench.view.report import TextSample, write_report
from workbench.view.samples import keep_sample, samples_of

__all__ = ["TEMPERATURE", "TOP_P", "Session"]

TEMPERATURE, TOP_P = 0.8, 0.95
"""How texts are drawn when nobody says otherwise; see `Sampling`."""

_SHOWN_DOMAINS = 12


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
        place = None if folder is None else Path(folder)
        self._begin(start_training(request, config, folder=place), place, [])

    @classmethod
    def resume(cls, folder: str | Path) -> "Session":
        """The session of a run on disk, at its newest checkpoint.

        Raises:
            FileNotFoundError: no run in the folder.
            ValueError: a damaged file, or a corpus that has changed since.
            BlockingIOError: another process, or another session of this one, writes this run.
        """
        session, samples = cls.__new__(cls), samples_of(RunFolder(Path(folder)))
        session._begin(resume_training(Path(folder)), Path(folder), samples)
        return session

    def _begin(self, trainer: Trainer, folder: Path | None, samples: list[TextSample]) -> None:
        self.trainer, self.samples = trainer, samples
        self._run = None if folder is None else RunFolder(folder)

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
        assert self.trainer.recorder is not None, "sessions always record"
        return self.trainer.recorder.trace()

    @property
    def trained_seconds(self) -> float:
        """How long the model has been trained [s]; evaluations are not counted."""
        return self.trainer.state.trained_seconds

    def train(self, steps: int, *, progress: bool = True) -> Iterator[StepReport]:
        """Train so many more steps; a report after each. Stop by leaving the loop, go on by calling again.

        A run with a folder is saved when the loop ends, however it ends.

        Raises:
            ValueError: a negative number of steps.
            NonFiniteLossError: the loss is no number any more; the model is as it was before that step.
            CheckpointError: the disk is full; earlier checkpoints are untouched.
        """
        reports = self.trainer.run(steps)
        return with_progress(reports, steps) if progress else reports

    def swap_router(
        self, name: str, *, carry: bool = True, rebuild_experts: bool = False, **arguments: Any
    ) -> SwapReport:
        """Another router in every MoE layer; experts stay, and gate weights where shapes agree.

        Args:
            name: a registered router; its arguments follow by name, or within the name as `top_k:top_k=4`.
            carry: False starts the new gate anew even where its shape agrees.
            rebuild_experts: make the experts anew where the router requires another kind.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that do not fit; the old router stays.
        """
        spec = Spec.parse(name)
        router = Spec(spec.name, {**spec.args, **arguments})
        return self.trainer.swap(router, carry=carry, rebuild_experts=rebuild_experts)

    def set_shadow(self, router: str | Path | None) -> Watch | None:
        """Let another router watch the same hidden states; the run does not change by one bit.

        Its decisions are sites with `is_shadow` in the trace. A resumed run has no shadow.

        Args:
            router: a name, as `top_k:top_k=4` (a fresh router that learns from its own losses and by imitation),
                a folder with a checkpoint (its router as it is), or None to stop.

        Raises:
            LookupError: unknown router.
            FileNotFoundError: no model in the folder.
            ValueError: a router or a checkpoint that does not fit this model.
        """
        self.trainer.watch = None if router is None else watch_of(self.model.config, self.trainer.config, router)
        return self.trainer.watch

    def undo(self) -> str:
        """Take the last router swap back: the old router with its optimiser state; experts keep what they learned.

        Raises:
            ValueError: no swap was made in this session.
        """
        return self.trainer.undo()

    def rewind(self) -> str:
        """Go back to the moment before the last router swap, bit for bit; what was trained since is lost.

        Raises:
            ValueError: no swap was made in this session, or it was undone.
        """
        return self.trainer.rewind()

    def record(self, text: str) -> Trace:
        """The routing of a fixed text under the model as it is now, in all layers.

        Raises:
            ValueError: an empty text.
        """
        recorder, seed = self._new_recorder(), self.trainer.config.seed
        token_ids = self.tokenizer.encode(text)
        record_text(self.model, self.tokenizer, token_ids, recorder, step=self.trainer.step, seed=seed)
        return recorder.trace()

    def ask(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 50,
        temperature: float = TEMPERATURE,
        top_p: float = TOP_P,
        stop: Sequence[str] = (),
        seed: int = 0,
        on_text: Callable[[str], None] = lambda text: None,
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
        recorder, sampling = (
            self._new_recorder(),
            Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p),
        )
        written = write_text(
            self.model,
            self.tokenizer,
            prompt,
            sampling,
            recorder=recorder,
            step=self.trainer.step,
            stop=stop,
            seed=seed,
            on_text=on_text,
        )
        again = f"; {self.model.config.router.name} sees later tokens, so the prefix was routed anew each time"
        answer = written.answer(
            prompt,
            settings=sampling.in_words(seed) + again * written.is_recomputed,
            trained_seconds=self.trained_seconds,
            trace=recorder.trace(),
        )
        self.samples.append(keep_sample(answer, self._run))
        return answer

    def evaluate(self) -> dict[str, float]:
        """Held-out loss per domain [bit/byte]."""
        return self.trainer.evaluate()

    def report(self, path: str | Path, *, title: str = "MoE Workbench run") -> Path:
        """One HTML page with the curves, the load, the tokens and the texts; opens offline."""
        return write_report(self.trace, path, title=title, samples=self.samples)

    def export(self, folder: str | Path) -> Path:
        """A new Hugging Face folder of the model and its tokenizer.

        Raises:
            ValueError: the architecture or router is of none of the four families; the message says what does not fit.
            FileExistsError: the folder holds something.
            OSError: the disk is full or not writable; nothing is left behind.
        """
        with TemporaryDirectory() as tokenizer:
            self.tokenizer.save(Path(tokenizer))
            export_hugging_face(self.model, folder, tokenizer=tokenizer)
        return Path(folder)

    def close(self) -> None:
        """Write what is pending and let go of the run's files; the model stays usable."""
        self.trainer.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.trainer.release if kind else self.trainer.close)()

    def _new_recorder(self) -> Recorder:
        attrs = {"model": json.dumps(self.model.config.to_json()), "tokenizer": self.tokenizer.name}
        return Recorder(attrs=attrs, decode_piece=self.tokenizer.piece)

    def _repr_html_(self) -> str:
        shown, more = self.corpus.domains[:_SHOWN_DOMAINS], len(self.corpus.domains) - _SHOWN_DOMAINS
        rows = {
            "model": f"{human_count(self.model.num_parameters())} parameters, {self.model.config.num_layers} blocks",
            "router": str(self.model.config.router),
            "corpus": f"{self.corpus.name}: {', '.join(shown)}{f' and {more} more' * (more > 0)}",
            "step": self.trainer.step,
            "tokens seen": human_count(self.trainer.tokens),
            "products in": f"{self.trainer.precision.dtype}, because {self.trainer.precision.reason}",
            "kept in": "memory" if self._run is None else self._run.path,
        }
        return facts("Session", rows, note=f"trained for {human_seconds(self.trained_seconds)}")
