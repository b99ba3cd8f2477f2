"""Lossy predictions beside exact ones."""

import math

import pytest
import torch

from workbench.offload.precision.lossy import loss_of_precision


def predicting(*rows: list[float]):
    """Always the same probabilities after a token, by its place in the window."""
    return lambda ids: torch.tensor([rows[: ids.shape[1]]]).log()


EXACT = predicting([0.5, 0.5], [0.5, 0.5], [0.75, 0.25])
LOSSY = predicting([0.5, 0.5], [0.25, 0.75], [0.75, 0.25])


def test_two_tokens_by_hand():
    loss = loss_of_precision(LOSSY, EXACT, [0, 1, 0])
    assert loss.kl == pytest.approx(0.5 * math.log(0.5 / 0.25 * 0.5 / 0.75) / 3)
    # the second token predicts the third, 0: half before, a quarter now; the third predicts nothing.
    assert loss.loss_change == pytest.approx(math.log(0.5 / 0.25) / 2)
    assert loss.exact_loss == pytest.approx(math.log(2))
    assert (loss.same_tokens, loss.tokens) == (pytest.approx(2 / 3), 3)
    assert str(loss) == "KL 0.04795 nats a token, loss +0.3466 on 3 tokens"
    assert "66.67%" in loss._repr_html_()


def test_windows_begin_anew():
    loss = loss_of_precision(LOSSY, EXACT, [0, 1, 0, 1, 1], window=2)
    assert loss.tokens == 5
    # in windows of two, the second place of each is the last: its prediction counts for the divergence alone.
    assert loss.loss_change == 0
    assert loss.kl == pytest.approx(2 * 0.5 * math.log(4 / 3) / 5)


def test_the_same_predictions_cost_nothing_at_all():
    loss = loss_of_precision(EXACT, EXACT, [0, 1, 0])
    assert (loss.kl, loss.loss_change, loss.same_tokens) == (0, 0, 1)


@pytest.mark.parametrize(
    ("tokens", "window", "message"),
    [([1], 8, "tokens of a text that a loss is measured on must be at least 2, got 1"), ([1, 2], 1, "window must be")],
)
def test_nothing_to_measure_is_refused(tokens, window, message):
    with pytest.raises(ValueError, match=message):
        loss_of_precision(LOSSY, EXACT, tokens, window=window)
