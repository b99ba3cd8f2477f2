"""Decisions of every router of a layer, in one row per token."""

import numpy as np
import pytest

from workbench.analysis._choices import choices
from workbench.trace import synthetic_trace
from workbench.trace.schema import empty_trace


def test_a_swap_joins_two_routers_of_a_layer(traced):
    before = {"expert": [[[0, 1]], [[2, 3]]], "step": 1}
    after = {"expert": [[[5]], [[4]]], "step": 2, "router": "switch", "num_experts": 6}
    found = choices(traced(before, after))
    assert found.expert.tolist() == [[[0, 1], [5, -1]], [[2, 3], [4, -1]]]
    assert found.weight.tolist() == [[[0.5, 0.5], [1, 0]]] * 2
    assert found.num_experts.tolist() == [6, 6]
    assert found.is_routed.all()
    assert found.token("step").tolist() == [1, 2]
    assert found.over == "2 train tokens, 2 layers; routers: top_k, switch"


def test_layers_may_have_other_numbers_of_experts(traced):
    trace = traced({"expert": [[[0]]], "num_experts": 2, "also": [{"expert": [[], [[3]]], "num_experts": 5}]})
    found = choices(trace)
    assert found.num_experts.tolist() == [2, 5]
    assert found.exists.tolist() == [[True, True, False, False, False], [True] * 5]


def test_the_phases_are_never_mixed(traced):
    trace = traced(
        {"expert": [[[0]]]},
        {
            "expert": [
                [[1]],
            ],
            "phase": "decode",
        },
    )
    assert choices(trace, phase="decode").expert.tolist() == [[[1]]]
    with pytest.raises(ValueError, match="holds 1 decode, 1 train tokens with routing; say phase='decode' or phase="):
        choices(trace)
    with pytest.raises(LookupError, match="holds no tokens with routing of eval; it holds 1 decode, 1 train"):
        choices(trace, phase="eval")


def test_the_probe_is_taken_alone(traced):
    trace = traced({"expert": [[[0]]]}, {"expert": [[[1]]], "phase": "prefill", "is_probe": True})
    assert choices(trace).expert.tolist() == [[[0]]]
    assert choices(trace, is_probe=True).expert.tolist() == [[[1]]]
    assert choices(trace, is_probe=True).about == "prefill probe"


def test_the_shadow_is_told_from_the_router_that_acts(traced):
    seen = {"expert": [[[0]]], "also": [{"expert": [[[3]]], "is_shadow": True}]}
    trace = traced({"expert": [[[2]]], "phase": "decode"}, seen)
    # only the training step had a shadow, so its phase is the only one.
    found = choices(trace, is_shadow=True)
    assert (found.expert.tolist(), found.phase, found.about) == ([[[3]]], "train", "shadowed train")
    with pytest.raises(LookupError, match="the trace has no shadow router; record a run that has one"):
        choices(synthetic_trace(num_tokens=2), is_shadow=True)


def test_what_is_missing_is_said():
    with pytest.raises(LookupError, match="the trace has no /routing, it holds nothing; record forward passes"):
        choices(empty_trace())


def test_the_first_choice_has_the_largest_weight(traced):
    weight = [[[0.25, 0.75], [0.5, 0.5], [0.0, 0.0]]]
    trace = traced({"expert": [[[0, 1], [2, 3], [-1, 2]]], "weight": weight})
    assert choices(trace).first().expert.tolist() == [[[1], [2], [2]]]


def test_an_expert_named_twice_is_distinct_once(traced):
    found = choices(traced({"expert": [[[1, 1], [3, 0], [-1, -1]]]}))
    assert found.distinct.tolist() == [[[1, -1], [0, 3], [-1, -1]]]


def test_some_tokens_and_some_layers_are_taken_together():
    found = choices(synthetic_trace(num_tokens=6, num_layers=3, phase="prefill"))
    part = found.at(np.array([4, 1])).at_layers(slice(1, 3))
    assert part.expert.tolist() == found.expert[1:, [4, 1]].tolist()
    assert part.token("position").tolist() == [4, 1]
    assert part.coords("layer")["layer"].values.tolist() == [1, 2]
