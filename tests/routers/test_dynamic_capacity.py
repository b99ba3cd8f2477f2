"""Capacity factors that follow the load: the numbers of the rule, and when it holds still."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from workbench.core import RouteContext, Tally
from workbench.routers._capacity import keep_first
from workbench.routers._dynamic_capacity import DynamicCapacity, capacity_in_force, dynamic_capacity_of

LIMITS = {"train": 1.25, "evaluate": 2.0}


def tally(demand: list[int], top_k: int = 1, **fields) -> Tally:
    counts = torch.tensor(demand)
    rest = {"layer": 0, "iteration": 0, "kept": counts, "losses": {}, "tokens": int(counts.sum()) // top_k}
    return Tally(demand=counts, **{**rest, **fields})


def follow(capacity: DynamicCapacity, demand: list[int], steps: int, top_k: int = 1) -> list[list[float]]:
    """The factors after each of some steps that ask for the same."""
    found = []
    for _ in range(steps):
        capacity.update([tally(demand, top_k)])
        found.append(capacity.factor.tolist())
    return found


def changes(factors: list[list[float]], start: float) -> list[int]:
    """Steps, counted from 1, at which any factor changed."""
    before = [[start] * len(factors[0]), *factors]
    return [index + 1 for index, factor in enumerate(factors) if factor != before[index]]


@pytest.mark.parametrize(("factor", "rows"), [(1, 13), (1.34, 17), (2, 25), (3, 38)])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_rows_of_eight_experts_two_choices_and_fifty_tokens(factor, rows, scope):
    assert DynamicCapacity(8, 2, factor=factor, scope=scope).rows(50).tolist() == [rows] * 8


def test_every_expert_has_rows_of_its_own_and_never_fewer_than_four():
    capacity = DynamicCapacity(4, 1, factor=1, scope="local")
    capacity.factor.copy_(torch.tensor([0.0, 0.5, 1.0, 2.0]))
    assert capacity.rows(40).tolist() == [4, 5, 10, 20]
    assert capacity.rows(0).tolist() == [4] * 4


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(50, 8, 2), (97, 6, 1), (33, 5, 3)])
def test_a_factor_of_experts_over_choices_never_drops(tokens, experts, top_k):
    capacity = DynamicCapacity(experts, top_k, factor=experts / top_k, scope="global")
    expert = torch.arange(top_k).expand(tokens, top_k).contiguous()
    assert keep_first(expert, experts, capacity.rows(tokens)).all()


def test_an_expert_whose_factor_covers_its_demand_drops_nothing():
    expert = torch.tensor([[0]] * 20 + [[1]] * 12 + [[2]] * 8)
    capacity = DynamicCapacity(4, 1, factor=1, scope="local")
    # needed: 2.0, 1.2 and 0.8; the second gets less.
    capacity.factor.copy_(torch.tensor([2.0, 0.9, 0.8, 0.0]))
    kept = keep_first(expert, 4, capacity.rows(40)).flatten()
    assert torch.bincount(expert.flatten()[kept], minlength=4).tolist() == [20, 9, 8, 0]


def test_the_score_counts_what_was_dropped_and_forgets_slowly():
    capacity = DynamicCapacity(4, 1, factor=1.0, scope="local")
    capacity.update([tally([40, 0, 0, 0], kept=torch.tensor([10, 0, 0, 0]))])
    # all tokens on one expert need a factor of 4: 0.99 of 1 and 0.01 of 4.
    assert capacity.score.tolist() == pytest.approx([1.03, 0.99, 0.99, 0.99])
    assert capacity.factor.tolist() == [1] * 4


def test_globally_the_busiest_expert_speaks_for_all():
    capacity = DynamicCapacity(4, 2, factor=1.0, scope="global")
    capacity.update([tally([40, 20, 10, 10], 2)])
    assert capacity.score.tolist() == pytest.approx([0.99 + 0.01 * 2] * 4)


def test_global_is_local_where_the_entries_are_equal():
    both = [DynamicCapacity(4, 1, factor=3.0, scope=scope) for scope in ("global", "local")]
    one, two = (follow(capacity, [10, 10, 10, 10], 500) for capacity in both)
    assert one == two
    assert changes(one, 3.0) != []
    assert torch.equal(both[0].rows(64), both[1].rows(64))


def test_it_shrinks_to_the_score_and_some_headroom():
    capacity = DynamicCapacity(4, 1, factor=3.0, scope="global")
    factors = follow(capacity, [10, 10, 10, 10], 200)
    assert changes(factors, 3.0) == [200]
    score = 1 + 2 * 0.99**200
    assert factors[-1] == pytest.approx([1.25 * score] * 4, rel=1e-4)


def test_it_grows_up_to_the_cap_and_stays_there():
    capacity = DynamicCapacity(8, 1, factor=1.0, scope="local")
    factors = follow(capacity, [80, 0, 0, 0, 0, 0, 0, 0], 900)
    # 8 would be needed; growth ends at 4, and the others have shrunk.
    assert [factor[0] for factor in factors][-1] == 4
    assert max(factor[0] for factor in factors) == 4
    assert factors[-1][1] < 0.01


def test_an_expert_that_shrank_grows_again_once_it_is_asked():
    capacity = DynamicCapacity(2, 1, factor=1.0, scope="local")
    follow(capacity, [20, 0], 600)
    assert float(capacity.factor[1]) < 0.1
    follow(capacity, [10, 10], 1500)
    assert 1.0 <= float(capacity.factor[1]) <= 1.25


def test_between_the_two_marks_nothing_moves():
    capacity = DynamicCapacity(4, 1, factor=1.25, scope="local")
    # 0.8 and 1.12 of an even load: between 0.6 and 0.92 of the factor, and so is where the score began, soon.
    assert changes(follow(capacity, [8, 9, 11, 12], 100), 1.25) == []
    capacity.score.copy_(torch.tensor([0.76, 1.14, 1.0, 1.1]))
    assert changes(follow(capacity, [8, 9, 11, 11], 1000), 1.25) == []


def test_two_changes_are_at_least_two_hundred_steps_apart():
    capacity, seen = DynamicCapacity(4, 1, factor=1.0, scope="local"), []
    for phase in range(12):
        demand = [70, 10, 10, 10] if phase % 2 else [10, 10, 10, 70]
        seen += follow(capacity, demand, 130)
    steps = changes(seen, 1.0)
    assert len(steps) > 2
    assert steps[0] >= 200
    assert min(b - a for a, b in pairwise(steps)) >= 200


def test_the_marks_are_arguments():
    marks = {"smoothing": 0, "shrink_below": 0.5, "grow_above": 0.9, "headroom": 1.5, "cap": 2, "fewest_steps": 2}
    capacity = DynamicCapacity(2, 1, factor=1.0, scope="local", **marks)
    assert follow(capacity, [16, 4], 3) == [[1, 1], pytest.approx([2, 0.6]), pytest.approx([2, 0.6])]


def test_other_layers_and_steps_without_tokens_do_not_count():
    capacity = DynamicCapacity(2, 1, factor=1.0, scope="local")
    capacity.update([tally([9, 1], is_here=False)])
    capacity.update([tally([0, 0])])
    assert capacity.score.tolist() == [1, 1]
    assert int(capacity.steps_since) == 0


def test_everything_it_knows_is_saved():
    one, two = (DynamicCapacity(4, 1, factor=factor, scope="local") for factor in (3.0, 1.0))
    follow(one, [25, 5, 5, 5], 230)
    two.load_state_dict(one.state_dict())
    assert follow(one, [25, 5, 5, 5], 300) == follow(two, [25, 5, 5, 5], 300)
    assert {name: tensor.dtype for name, tensor in one.state_dict().items()} == {
        "factor": torch.float32,
        "score": torch.float32,
        "steps_since": torch.int64,
    }


@pytest.mark.parametrize(("phase", "expected"), [("train", 16), ("eval", 16), ("prefill", None), ("decode", None)])
def test_it_takes_the_place_of_both_capacities(phase, expected):
    dynamic = DynamicCapacity(8, 1, factor=1.0, scope="global")
    found = capacity_in_force(dynamic, 128, 8, RouteContext(phase=phase), **LIMITS)
    assert (found.tolist() if isinstance(found, Tensor) else found) == (expected and [expected] * 8)


def test_off_is_the_plain_capacity():
    assert dynamic_capacity_of("off", 8, 2, capacity_factor=2.0) is None
    assert capacity_in_force(None, 128, 8, RouteContext(phase="train"), **LIMITS) == 20


def test_the_first_factor_is_the_routers_own_per_choice():
    found = dynamic_capacity_of("local", 8, 2, capacity_factor=2.0)
    assert (found.factor.tolist(), found.scope) == ([1.0] * 8, "local")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": -1}, "factor must be at least 0, got -1"),
        ({"smoothing": 1.5}, "smoothing must be between 0 and 1, got 1.5"),
        ({"shrink_below": 0.95}, "shrink_below must be between 0 and 0.92, got 0.95; it must stay below grow_above"),
        ({"headroom": 2.0}, "headroom must be between 1.0869565217391304 and 1.6666666666666667, got 2.0"),
        ({"fewest_steps": 0}, "fewest_steps must be at least 1, got 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        DynamicCapacity(8, 2, **{"factor": 1.0, "scope": "global", **arguments})
    assert str(error.value) == message
