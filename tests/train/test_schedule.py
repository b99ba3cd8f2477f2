"""Learning rates worked by hand."""

import pytest

from workbench.train.config import TrainConfig
from workbench.train.schedule import learning_rate


def rates(steps, **options) -> list[float]:
    config = TrainConfig(learning_rate=1.0, **options)
    return [learning_rate(config, step) for step in steps]


def test_warmup_rises_in_equal_steps_and_never_starts_at_zero():
    assert rates(range(6), warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_no_warmup_starts_at_the_full_rate():
    assert rates([0], warmup_steps=0) == [1.0]


def test_without_a_horizon_the_rate_never_falls():
    assert rates([10, 10**6], warmup_steps=2) == [1.0, 1.0]


def test_stable_then_linear_decay_over_the_last_share():
    # 10 steps, the last 4 decay from 1 to 0.2 in quarters of 0.8.
    expected = [1.0] * 7 + [0.8, 0.6, 0.4, 0.2, 0.2]
    assert rates(range(12), warmup_steps=0, num_steps=10, decay_share=0.4, final_share=0.2) == pytest.approx(expected)


def test_cosine_passes_its_middle_half_way_and_stays_at_the_end():
    # warm for 2, then half a cosine over 8 steps from 1 to 0.5; cos(pi/4) = 0.7071.
    found = rates([1, 2, 4, 6, 10, 99], warmup_steps=2, num_steps=10, schedule="cosine", final_share=0.5)
    assert found == pytest.approx([1.0, 1.0, 0.5 + 0.25 * (1 + 0.7071068), 0.75, 0.5, 0.5])
