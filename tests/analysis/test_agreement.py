"""The router that acts and the one that watches, by hand and by loops."""

import numpy as np
import pytest

from workbench.analysis import only, shadow_agreement, shadow_confusion
from workbench.trace import synthetic_trace


def watched(step, expert, shadow, *, num_experts=4, **fields):
    other = {"expert": shadow, "is_shadow": True, "router": "switch", "num_experts": num_experts}
    return {"expert": expert, "step": step, "also": [other]} | fields


def test_agreement_per_step_and_layer(traced):
    trace = traced(
        watched(1, [[[0, 1], [2, 3]], [[0, 1], [2, 3]]], [[[1, 0], [2, 0]], [[2, 3], [0, 1]]]),
        watched(2, [[[0, 1]], [[0, 1]]], [[[0, 1]], [[0, 2]]]),
    )
    found = shadow_agreement(trace)
    assert found.values.tolist() == [[0.75, 0], [1, 0.5]]
    assert found["step"].values.tolist() == [1, 2]
    assert found["tokens"].values.tolist() == [[2, 2], [1, 1]]
    assert shadow_agreement(trace, unit="set").values.tolist() == [[0.5, 0], [1, 0]]
    assert shadow_agreement(trace, unit="first").values.tolist() == [[0.5, 0], [1, 1]]
    assert found.attrs["over"] == (
        "3 train tokens, 2 layers; routers: top_k; shadow: 3 shadowed train tokens, 2 layers; routers: switch"
    )


def test_a_shadow_with_fewer_slots_and_extra_experts_counts_against_the_larger_set(traced):
    found = shadow_agreement(traced(watched(1, [[[0, 1], [2, 3]]], [[[1], [5]]], num_experts=6)))
    assert found.item() == pytest.approx(1 / 4)


def test_steps_without_a_shadow_are_left_out_and_a_swap_goes_on(traced):
    trace = traced(
        {"expert": [[[0]]], "step": 1},
        watched(2, [[[0]]], [[[0]]]),
        watched(3, [[[4]]], [[[0]]], router="wide") | {"num_experts": 5},
    )
    found = shadow_agreement(trace)
    assert found["step"].values.tolist() == [2, 3]
    assert found.values.tolist() == [[1], [0]]


def test_only_layers_that_both_routed_are_compared(traced):
    passes = watched(1, [[[0]], [[1]]], [[], [[1]]])
    found = shadow_agreement(traced(passes))
    assert (found["layer"].values.tolist(), found.values.tolist()) == ([1], [[1]])


def test_random_routers_agree_with_loops(traced, draws):
    steps = [(draws(2, 15, 6, 2, seed=step), draws(2, 15, 6, 3, seed=step + 50)) for step in range(3)]
    trace = traced(*(watched(i, a, b, num_experts=6) | {"num_experts": 6} for i, (a, b) in enumerate(steps)))
    found = shadow_agreement(trace)
    for step, (acting, shadow) in enumerate(steps):
        for layer in range(2):
            same = most = 0
            for one, two in zip(acting[layer], shadow[layer], strict=True):
                first, second = {*one} - {-1}, {*two} - {-1}
                same += len(first & second)
                most += max(len(first), len(second))
            assert found.values[step, layer] == pytest.approx(same / most)


def test_the_probe_and_the_phases_are_told_apart(traced):
    trace = traced(
        watched(1, [[[0]]], [[[0]]]),
        watched(1, [[[1]]], [[[0]]], phase="prefill", is_probe=True),
        watched(2, [[[2]]], [[[0]]], phase="decode"),
    )
    assert shadow_agreement(trace, phase="train").values.tolist() == [[1]]
    assert shadow_agreement(trace, phase="decode").values.tolist() == [[0]]
    assert shadow_agreement(trace, is_probe=True).values.tolist() == [[0]]
    with pytest.raises(ValueError, match="1 decode, 1 train tokens with routing that a shadow router saw; say phase="):
        shadow_agreement(trace)


def test_lost_assignments_may_be_cut_away(traced):
    trace = traced(watched(1, [[[0, 1]]], [[[0]]], kept=[[[True, False]]]))
    assert shadow_agreement(trace).item() == 0.5
    assert shadow_agreement(only(trace, is_kept=True)).item() == 1
    assert np.isnan(shadow_agreement(traced(watched(1, [[[-1]]], [[[-1]]]))).item())


def test_a_trace_without_shadow_says_so(traced):
    with pytest.raises(LookupError, match="the trace has no shadow router; record a run that has one"):
        shadow_agreement(synthetic_trace(num_tokens=2))
    apart = traced(watched(1, [[[0]]], [[], [[0]]]))
    with pytest.raises(LookupError, match="the shadow router and the active one have no layer and token in common"):
        shadow_agreement(apart)


def test_confusion_counts_first_experts_and_load_counts_all(traced):
    weight = [[[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]]
    passes = watched(1, [[[0, 1], [2, 3], [0, 1]]], [[[0], [1], [1]]], weight=weight)
    found = shadow_confusion(traced(passes))
    counted = np.zeros((4, 4), int)
    counted[0, 0] = counted[2, 1] = counted[1, 1] = 1
    assert found["tokens"].values[0].tolist() == counted.tolist()
    assert found["load"].sel(router="active").values[0].tolist() == pytest.approx([2 / 6, 2 / 6, 1 / 6, 1 / 6])
    assert found["load"].sel(router="shadow").values[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])


def test_its_diagonal_is_the_agreement_on_first_experts(traced, draws):
    acting, shadow = draws(2, 40, 6, 2, seed=1, empty=0.0), draws(2, 40, 6, 3, seed=2, empty=0.0)
    trace = traced(watched(1, acting, shadow, num_experts=6) | {"num_experts": 6})
    counted = shadow_confusion(trace)["tokens"].values
    same = counted.diagonal(axis1=1, axis2=2).sum(-1) / counted.sum((1, 2))
    assert np.allclose(same, shadow_agreement(trace, unit="first").values[0])


def test_an_expert_that_only_the_shadow_has_does_not_exist_for_the_other(traced):
    found = shadow_confusion(traced(watched(1, [[[0]]], [[[5]]], num_experts=6)))
    assert found["tokens"].values[0, 0, 5] == 1
    assert np.isnan(found["load"].sel(router="active").values[0]).tolist() == [False] * 4 + [True] * 2
    assert found["load"].sel(router="shadow").values[0].tolist() == [0, 0, 0, 0, 0, 1]


def test_tokens_that_one_of_them_did_not_route_are_not_counted(traced):
    trace = traced(watched(1, [[[0], [-1]]], [[[1], [1]]]))
    assert shadow_confusion(trace)["tokens"].values.sum() == 1
