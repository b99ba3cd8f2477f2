"""A number of experts per token that grows during training."""

import pytest

from workbench.core import RouteContext
from workbench.routers._growing_k import GrowingTopK


def grow(num_experts=16, low=8, high=16, growth="linear", evaluate=None) -> GrowingTopK:
    return GrowingTopK.of(num_experts, low=low, high=high, growth=growth, evaluate=evaluate)


def at(top_k: GrowingTopK, step: int, steps: int) -> int:
    return top_k.at(RouteContext(phase="train", step=step, num_steps=steps))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 8), (25_000, 8), (25_001, 9), (74_999, 9), (75_000, 10), (375_000, 16), (399_999, 16), (400_000, 16)],
)
def test_the_official_run_grows_from_8_to_16_over_400_000_steps(step, expected):
    assert at(grow(), step, 400_000) == expected


def test_the_official_run_uses_12_experts_on_average():
    used = [at(grow(), step, 4000) for step in range(4000)]
    assert abs(sum(used) / 4000 - 12) < 0.01
    assert used == sorted(used)


# From the official schedules at 16 experts, 3 to 13 of them, over 900 steps.
OFFICIAL = {
    "linear": [3, 4, 6, 7, 8, 10, 11, 12],
    "cosine": [3, 3, 4, 5, 6, 8, 10, 12],
    "exponential": [3, 6, 9, 10, 11, 12, 12, 12],
}


@pytest.mark.parametrize("growth", OFFICIAL)
def test_each_growth_is_that_of_the_official_code(growth):
    top_k = grow(low=3, high=13, growth=growth)
    assert [at(top_k, step, 900) for step in range(0, 900, 120)] == OFFICIAL[growth]


@pytest.mark.parametrize("growth", OFFICIAL)
@pytest.mark.parametrize("steps", [1, 7, 299, 1000])
def test_it_never_shrinks_nor_leaves_its_range(growth, steps):
    used = [at(grow(low=2, high=11, growth=growth), step, steps) for step in range(2 * steps)]
    assert used == sorted(used)
    assert used[0] == 2
    assert max(used) <= 11


def test_half_and_all_of_the_experts_are_the_defaults():
    for experts, low in ((1, 1), (2, 1), (4, 2), (7, 3), (8, 4), (16, 8)):
        assert grow(experts, None, None) == GrowingTopK(low, experts, "linear", experts)
    assert grow(8, None, 3) == GrowingTopK(3, 3, "linear", 3)


def test_a_run_of_unknown_length_and_evaluation_use_the_highest():
    assert at(grow(), 5, 0) == 16
    for phase in ("eval", "prefill", "decode"):
        assert grow().at(RouteContext(phase=phase, step=0, num_steps=100)) == 16
        assert grow(evaluate=2).at(RouteContext(phase=phase, step=50, num_steps=100)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"high": 17}, "max_top_k must be between 1 and 16, got 17; it cannot be more than the experts"),
        ({"high": 0}, "max_top_k must be between 1 and 16, got 0; it cannot be more than the experts"),
        ({"low": 0}, "min_top_k must be between 1 and 16, got 0; it is where the growth to max_top_k starts"),
        ({"low": 9, "high": 8}, "min_top_k must be between 1 and 8, got 9; it is where the growth to max_top_k starts"),
        ({"evaluate": 17}, "eval_top_k must be between 1 and 16, got 17; it cannot be more than the experts"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        grow(**arguments)
    assert str(error.value) == message
