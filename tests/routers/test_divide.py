"""Experts in equal parts."""

import pytest

from workbench.routers._divide import check_divides, divisors, near_square


def test_divisors_run_from_one_to_the_whole():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(7) == [1, 7]
    assert divisors(1) == [1]


@pytest.mark.parametrize(("whole", "parts"), [(1, 1), (2, 1), (4, 2), (7, 1), (8, 2), (12, 3), (16, 4), (64, 8)])
def test_the_usual_number_of_parts_is_the_largest_divisor_up_to_the_square_root(whole, parts):
    assert near_square(whole) == parts


def test_parts_that_do_not_fit_are_refused_with_what_does():
    assert check_divides("nodes", 4, 8) == 4
    for parts in (0, 3, 16, -1):
        with pytest.raises(ValueError) as error:
            check_divides("nodes", parts, 8)
        assert str(error.value) == f"nodes must divide num_experts=8, got {parts}; legal values: [1, 2, 4, 8]"
