"""The bar shows the reports and passes them on."""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest

from workbench.core import StepReport
from workbench.train.progress import with_progress


def reports(count: int, closed: list[str]) -> Iterator[StepReport]:
    numbers = {"aux_losses": {}, "aux_weights": {}, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 1}
    try:
        for step in range(1, count + 1):
            yield StepReport(step=step, loss=2.5, tokens_per_second=1234.0, wall_seconds=1.0, **numbers)
    finally:
        closed.append("closed")


def test_every_report_passes_and_the_bar_says_loss_speed_and_share():
    shown = io.StringIO()
    with redirect_stderr(shown):
        passed = list(with_progress(reports(3, []), 3))
    assert [report.step for report in passed] == [1, 2, 3]
    assert "3/3" in shown.getvalue()
    assert "loss 2.500, 1,234 tokens/s" in shown.getvalue()


def test_leaving_the_loop_closes_the_run():
    closed = []
    with redirect_stderr(io.StringIO()):
        for _ in with_progress(reports(3, closed), 3):
            break
    assert closed == ["closed"]


def test_an_error_of_the_run_passes():
    def failing() -> Iterator[StepReport]:
        yield from reports(1, [])
        raise OSError("the disk is full")

    with redirect_stderr(io.StringIO()), pytest.raises(OSError, match="the disk is full"):
        list(with_progress(failing(), 2))
