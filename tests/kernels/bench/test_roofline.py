"""The picture: points where the numbers say, and a title on each."""

import re

import pytest
import torch
from workbench_kernels.bench.cases import Case
from workbench_kernels.bench.race import Race, Result
from workbench_kernels.bench.roofline import Machine, measure_machine, roofline

CASE = Case("layer", 100, 64, 64, 4, 2)
MACHINE = Machine(flops=1e11, bandwidth=1e10, name="a machine & more")


def one(name, rate, **changes):
    return Race(CASE, torch.float32, "cpu", changes.get("learns", False), {name: Result((CASE.flops / rate,))})


def test_a_point_at_the_machines_rate_lies_on_the_roof():
    picture = roofline([one("workbench", 1e11)], MACHINE)
    roof = re.search(r'polyline points="[\d.,]+ [\d.]+,([\d.]+)', picture)[1]
    point = re.search(r'</title><circle cx="[\d.]+" cy="([\d.]+)"', picture)[1]
    assert point == roof


def test_twice_the_rate_is_higher_and_every_point_has_its_words():
    picture = roofline([one("workbench", 2e10), one("workbench", 4e10)], MACHINE)
    low, high = (float(y) for y in re.findall(r'</title><circle cx="[\d.]+" cy="([\d.]+)"', picture))
    assert high < low
    assert "workbench: layer, 100 tokens, 40 GFLOP/s" in picture
    assert "a machine &amp; more" in picture


def test_everybody_has_a_mark_of_their_own():
    names = ["workbench", *(f"peer {letter}" for letter in "abcdefg")]
    picture = roofline([Race(CASE, torch.float32, "cpu", False, {name: Result((1e-3,)) for name in names})], MACHINE)
    kinds = re.findall(r"</title><(?:path d=\"M[\d.]+ [\d.]+|circle)([^>]*?)\" fill=\"(#\w+)\"", picture)
    assert len(kinds) == len(set(kinds)) == len(names)


def test_layers_in_one_place_have_their_names_side_by_side():
    other = Case("twin", 100, 64, 64, 4, 2)
    races = [one("workbench", 2e10), Race(other, torch.float32, "cpu", False, {"workbench": Result((1e-3,))})]
    lefts = dict(re.findall(r'rotate\(-90 ([\d.]+) \d+\)"><text[^>]*>(layer|twin), 100', roofline(races, MACHINE)))
    assert sorted(lefts.values()) == ["layer", "twin"]


def test_without_a_forward_race_it_says_what_to_run():
    with pytest.raises(ValueError, match=r"at least one forward race, got none; run race\(case\) first"):
        roofline([one("workbench", 1e9, learns=True)], MACHINE)


@pytest.mark.slow
def test_a_machine_is_measured_in_plausible_bounds():
    machine = measure_machine()
    assert 1e8 < machine.flops < 1e14
    assert 1e8 < machine.bandwidth < 1e13
