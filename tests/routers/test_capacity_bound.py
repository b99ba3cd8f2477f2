"""LocMoE's bound on capacity: its published numbers, chance on the sphere, and its order."""

import math

import pytest
import torch

from workbench.routers._capacity_bound import chance_of_cosine, smallest_capacity


@pytest.mark.parametrize(("width", "chance"), [(64, 0.3211), (256, 0.3183), (1024, 0.3175), (5120, 0.3174)])
def test_a_cosine_of_one_over_the_root_of_the_width_has_a_chance_of_nearly_a_third(width, chance):
    assert abs(chance_of_cosine(width, width**-0.5) - chance) < 5e-5
    assert abs(chance_of_cosine(width, width**-0.5) - math.erfc(0.5**0.5)) < 0.005


@pytest.mark.parametrize(
    ("width", "experts", "cosine", "exact", "by_erfc", "by_exp"),
    [(5120, 16, 0.03, 1.965, 1.966, 0.627), (256, 8, 0.1, 1.139, 1.150, 0.452), (256, 8, 0.2, 98.6, 101.9, 23.2)],
)
def test_the_bound_has_the_numbers_of_the_paper_s_formulas(width, experts, cosine, exact, by_erfc, by_exp):
    exponent = cosine**2 * width / (2 - cosine**2)
    assert smallest_capacity(width, experts, cosine) == pytest.approx(exact, rel=5e-4)
    assert 1 / (experts * math.erfc(exponent**0.5)) == pytest.approx(by_erfc, rel=5e-4)
    assert math.exp(exponent) / experts == pytest.approx(by_exp, rel=2e-3)
    assert by_exp < smallest_capacity(width, experts, cosine) < by_erfc


def test_the_chance_is_that_of_random_directions():
    direction = torch.nn.functional.normalize(torch.randn(200_000, 12), dim=-1)
    for cosine in (0.1, 0.3, 0.6):
        seen = float((direction[:, 0].abs() >= cosine).float().mean())
        assert abs(seen - chance_of_cosine(12, cosine)) < 5 * (0.25 / 200_000) ** 0.5


def test_in_a_plane_and_in_space_the_chance_is_known_in_closed_form():
    for cosine in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert chance_of_cosine(2, cosine) == pytest.approx(1 - 2 * math.asin(cosine) / math.pi, abs=1e-9)
        assert chance_of_cosine(3, cosine) == pytest.approx(1 - cosine, abs=1e-8)


def test_the_bound_grows_with_cosine_and_width_and_falls_with_experts():
    base = smallest_capacity(256, 8, 0.1)
    assert smallest_capacity(256, 8, 0.11) > base
    assert smallest_capacity(300, 8, 0.1) > base
    assert smallest_capacity(256, 9, 0.1) < base
    assert smallest_capacity(256, 8, 1.0) == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 8, 0.1), "width must be at least 2, got 1"),
        ((64, 0, 0.1), "num_experts must be at least 1, got 0"),
        ((64, 8, 1.5), "cosine must be between 0 and 1, got 1.5"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        smallest_capacity(*arguments)
    assert str(error.value) == message
