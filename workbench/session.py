"""The notebook facade: one object that trains, swaps routers, records, answers and shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, final, overload

from workbench.core.check import at_least
from workbench.core.records import StepReport
from workbench.core.spec import Spec
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import Tokenizer
from workbench.live.notebook import in_notebook
from workbench.live.offloading import OFFLOAD, offload_run
from workbench.live.run import LiveRun
from workbench.live.writing import record, reply
from workbench.model.config import ModelConfig
from workbench.model.generate import Sampling
from workbench.model.recorded import Answer
from workbench.model.transformer import Transformer
from workbench.model.weights import export_hugging_face
from workbench.offload.config import OffloadConfig
from workbench.offload.model import OffloadedModel
from workbench.trace.schema import Trace
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.config import TrainConfig
from workbench.train.progress import with_progress
from workbench.train.run_folder import RunFolder
from workbench.train.swap import SwapReport
from workbench.train.trainer import Trainer
from workbench.train.watch import Watch
from workbench.view.cards import live_bundle, live_widget, session_card
from workbench.view.report import TextSample, write_report
from workbench.view.samples import keep_sample, samples_of

__all__ = ["TEMPERATURE", "TOP_P", "Session"]

TEMPERATURE, TOP_P = 0.8, 0.95
"""How texts are drawn when nobody says otherwise; see `Sampling`."""


@final
class Session:
    """Train a model and watch it; every method delegates to the part that does the work, `live` is what viewers see.

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
        asked = {"model": model, "corpus": corpus, "router": router, "tokenizer": tokenizer, "folder": folder, **short}
        said = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
        self._begin(start_training(request, config, folder=place), place, [], f"session = Session({said})")

    @classmethod
    def resume(cls, folder: str | Path) -> "Session":
        """The session of a run on disk, at its newest checkpoint.

        Raises:
            FileNotFoundError: no run in the folder.
            ValueError: a damaged file, or a corpus that has changed since.
            BlockingIOError: another process, or another session of this one, writes this run.
        """
        session, samples = cls.__new__(cls), samples_of(RunFolder(Path(folder)))
        session._begin(
            resume_training(Path(folder)), Path(folder), samples, f"session = Session.resume({str(folder)!r})"
        )
        return session

    def _begin(self, trainer: Trainer, folder: Path | None, samples: list[TextSample], code: str) -> None:
        self.trainer, self.samples = trainer, samples
        self._run = None if folder is None else RunFolder(folder)
        title = trainer.batches.corpus.name if folder is None else folder.name
        self.live = LiveRun(trainer, title=title, code=code, show=live_bundle)

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
        return self.live.desk.do(self.trainer.recorder.trace)

    @overload
    def train(
        self, steps: int, *, progress: bool = True, background: Literal[False] = False
    ) -> Iterator[StepReport]: ...
    @overload
    def train(self, steps: int, *, progress: bool = True, background: Literal[True]) -> LiveRun: ...
    def train(self, steps: int, *, progress: bool = True, background: bool = False) -> Iterator[StepReport] | LiveRun:
        """Train so many more steps; a report after each. Stop by leaving the loop, go on by calling again.

        Between two steps it does what viewers ask for: pause, swap, steer. A run with a folder is saved when the
        loop ends, however it ends.

        Args:
            background: train on a thread of its own and return the run at once; `wait()` for it.

        Raises:
            ValueError: a negative number of steps.
            NonFiniteLossError: the loss is no number any more; the model is as it was before that step.
            CheckpointError: the disk is full; earlier checkpoints are untouched.
        """
        at_least("steps", steps, 0)
        if background:
            return self.live.start(steps)
        if in_notebook():
            self.live.open()
        reports = self.live.steps(steps)
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
        how = {"carry": carry, "rebuild_experts": rebuild_experts}
        report: SwapReport = self.live.command("swap_router", name=name, args=arguments, **how)
        return report

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
        watch: Watch | None = self.live.command("set_shadow", name=router)
        return watch

    def undo(self) -> str:
        """Take the last change back. A router swap: the old router with its optimiser state, experts as they are now.

        Raises:
            ValueError: nothing was changed in this session.
        """
        return str(self.live.command("undo"))

    def rewind(self) -> str:
        """Go back to the moment before the last router swap, bit for bit; what was trained since is lost.

        Raises:
            ValueError: no swap was made in this session, or it was undone.
        """
        return str(self.live.command("rewind"))

    def record(self, text: str) -> Trace:
        """The routing of a text under the model as it is now, in all layers; a ValueError if it is empty."""
        return record(self.live, text)

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
        """The model's continuation of a prompt; it says so where a router made it route the prefix for every token.

        Args:
            temperature: 0 takes the most probable token.
            on_text: called with each piece of text as it is written.

        Raises:
            ValueError: sampling values out of range.
        """
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
        said = self.live.desk.do(lambda: reply(self.live, prompt, sampling, seed=seed, stop=stop, on_text=on_text))
        self.samples.append(keep_sample(said, self._run))
        return said

    def offload(
        self,
        how: OffloadConfig | int | str | None = OFFLOAD,
        *,
        policy: str | Spec | None = None,
        prefetch: str | Spec | None = None,
    ) -> OffloadedModel | None:
        """From now on a copy of the model writes the texts, its experts, as they are now, on disk; see `offload_run`.

        Args:
            how: every option, of which `policy` and `prefetch` are short for two; or a budget for experts and KV cache,
                as `64MiB` or a share of all experts; None takes the copy away.
        """
        return offload_run(self.live, how, policy=policy, prefetch=prefetch)

    def evaluate(self) -> dict[str, float]:
        """Held-out loss per domain [bit/byte]."""
        return self.live.desk.do(self.trainer.evaluate)

    def report(self, path: str | Path, *, title: str = "MoE Workbench run") -> Path:
        """One HTML page with the curves, the load, the tokens and the texts; opens offline."""
        return write_report(self.trace, path, title=title, samples=self.samples)

    def export(self, folder: str | Path) -> Path:
        """A new Hugging Face folder of the model and its tokenizer.

        Raises:
            ValueError: the architecture or router is of none of the four families; it says what does not fit.
            FileExistsError: the folder holds something.
            OSError: the disk is full or not writable; nothing is left behind.
        """
        with TemporaryDirectory() as tokenizer:
            self.tokenizer.save(Path(tokenizer))
            export_hugging_face(self.model, folder, tokenizer=tokenizer)
        return Path(folder)

    def close(self) -> None:
        """Write what is pending and let go of the run's files; the model stays usable."""
        self.offload(None)
        self.live.close()
        self.trainer.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return self.close()
        self.offload(None)
        self.live.close()
        self.trainer.release()

    def _repr_html_(self) -> str:
        return session_card(self.trainer, self._run)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), **live_bundle(self.live)}

    def _display_(self) -> Any:
        # what marimo asks for: it takes a widget, and no bundle of MIME types.
        return live_widget(self.live)
