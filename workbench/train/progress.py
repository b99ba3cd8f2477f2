"""A progress bar around the reports of a run."""

from collections.abc import Iterator

from tqdm.auto import tqdm

from workbench.core.records import StepReport

__all__ = ["with_progress"]


def with_progress(reports: Iterator[StepReport], steps: int) -> Iterator[StepReport]:
    """The same reports, with loss, tokens/s and the time left shown beside."""
    with tqdm(reports, total=steps, unit="step", dynamic_ncols=True) as bar:
        for report in bar:
            bar.set_postfix_str(f"loss {report.loss:.3f}, {report.tokens_per_second:,.0f} tokens/s", refresh=False)
            yield report
