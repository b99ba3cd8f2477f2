"""The texts that a run's model wrote, kept beside it."""

from dataclasses import asdict

from workbench.model.recorded import Answer
from workbench.train.run_folder import RunFolder
from workbench.view.report import TextSample

__all__ = ["keep_sample", "samples_of"]


def keep_sample(answer: Answer, run: RunFolder | None) -> TextSample:
    """An answer as a report shows it, written into the run's folder if there is one."""
    sample = TextSample(
        prompt=answer.prompt, text=answer.text, settings=answer.settings, trained_seconds=answer.trained_seconds
    )
    if run is not None:
        run.add_sample(asdict(sample))
    return sample


def samples_of(run: RunFolder) -> list[TextSample]:
    """The texts that a run's model wrote.

    Raises:
        ValueError: the file is damaged, or of another version.
    """
    try:
        return [TextSample(**sample) for sample in run.samples()]
    except TypeError as error:
        raise ValueError(f"{run.path} holds texts of another version ({error}); remove its samples.json") from error
