"""What is no number stops the run, with the step and the way back."""

import math

import pytest

from workbench.train.finite import NonFiniteLossError, check_finite


def test_numbers_pass(tmp_path):
    check_finite(1, 3.0, 0.0, tmp_path)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_the_message_names_the_step_and_the_last_good_checkpoint(loss, norm, tmp_path):
    for step in (10, 9):
        (tmp_path / f"step_{step:08d}").mkdir()
        (tmp_path / f"step_{step:08d}" / "state.json").write_text("{}")
    with pytest.raises(NonFiniteLossError) as stopped:
        check_finite(12, loss, norm, tmp_path)
    text = str(stopped.value)
    assert text.startswith(f"step 12: expected a finite loss and gradient, got loss {loss} and gradient norm {norm}")
    assert f"the last good checkpoint is {tmp_path / 'step_00000010'}" in text


def test_without_a_folder_there_is_no_checkpoint_to_name():
    with pytest.raises(NonFiniteLossError, match="no checkpoint was written"):
        check_finite(1, math.nan, 1.0, None)
