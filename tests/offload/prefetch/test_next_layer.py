"""The next layer's gate on this layer's hidden states."""

import pytest

from workbench.core.spec import Spec
from workbench.offload.replay.scene import replay
from workbench.offload.requests import Requests

AHEAD = [(5, 0.25), (4, 0.5), (7, 0.25)]


def test_the_gate_says_who_comes_the_surest_first(drive):
    assert drive("next_layer").see(0, [1], ahead=AHEAD) == [(4, 0.5), (5, 0.25), (7, 0.25)]


def test_only_so_many_are_taken(drive):
    assert drive("next_layer", most=2).see(0, [1], ahead=AHEAD) == [(4, 0.5), (5, 0.25)]
    with pytest.raises(ValueError, match="most must be at least 0, got -1"):
        drive("next_layer", most=-1)


def test_a_trace_without_the_guess_is_refused():
    requests = Requests.of_sets([[0], [1]], num_layers=2, num_experts=2)
    with pytest.raises(LookupError, match="next_layer needs a guess of the next layer's experts"):
        replay(requests, policy=Spec("lru"), capacity=2, prefetch=Spec("next_layer"))
