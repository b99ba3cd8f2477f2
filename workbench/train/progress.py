"""A progress bar around the reports of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from workbench.core.records import StepReport

__all__ = ["steps_done", "with_progress"]


def with_progress(reports: Iterator[StepReport], steps: int) -> Iterator[StepReport]:
    """The same reports, with loss, tokens/s and the time left shown beside."""
    with tqdm(reports, total=steps, unit="step", dynamic_ncols=True) as bar:
        for report in bar:
            bar.set_postfix_str(f"loss {report.loss:.3f}, {report.tokens_per_second:,.0f} tokens/s", refresh=False)
            yield report


@contextmanager
def steps_done(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over many runs at once; call what it gives with the steps done and to do."""
    with tqdm(total=total, unit="step", dynamic_ncols=True, smoothing=0.1) as bar:
        first: list[int] = []

        def on_progress(done: int, of: int) -> None:
            # what an earlier comparison has done is no speed of this one.
            first.append(done)
            bar.initial, bar.total, bar.n = first[0], of, done
            bar.refresh()

        yield on_progress
