"""How much of the probe text is routed elsewhere, by hand and by loops."""

import numpy as np
import pytest

from workbench.analysis import fluctuation, fluctuation_between, only
from workbench.trace import synthetic_trace


def probe(step, expert, **fields):
    return {"expert": expert, "step": step, "phase": "prefill", "is_probe": True} | fields


@pytest.fixture
def run(traced):
    """Two layers, two tokens, the probe at steps 0, 50 and 100 between training steps."""
    train = {"expert": [[[0, 1]], [[0, 1]]]}
    return traced(
        probe(0, [[[0, 1], [2, 3]], [[0, 1], [0, 1]]]),
        train | {"step": 50},
        probe(50, [[[1, 0], [2, 0]], [[0, 1], [0, 1]]]),
        train | {"step": 100},
        probe(100, [[[0, 1], [2, 3]], [[2, 3], [0, 1]]]),
    )


def test_the_share_that_changed_since_the_last_time(run):
    found = fluctuation(run)
    assert found.values.tolist() == [[0.25, 0], [0.25, 0.5]]
    assert (found["step"].values.tolist(), found["since"].values.tolist()) == ([50, 100], [0, 50])
    assert found.attrs["over"].endswith("probe text of 2 tokens at steps 0, 50, 100")


def test_the_share_that_changed_since_the_first_time(run):
    found = fluctuation(run, against="first")
    assert found.values.tolist() == [[0.25, 0], [0, 0.5]]
    assert found["since"].values.tolist() == [0, 0]


def test_tokens_whose_set_or_first_expert_changed(run):
    assert fluctuation(run, unit="set").values.tolist() == [[0.5, 0], [0.5, 0.5]]
    # of equal weights the first slot counts.
    assert fluctuation(run, unit="first").values.tolist() == [[0.5, 0], [0.5, 0.5]]
    assert fluctuation(run, unit="set").attrs["long_name"] == "share of tokens whose set of experts changed"


def test_a_step_does_not_change_against_itself_and_two_steps_alike_both_ways(run):
    for unit in ("assignment", "first", "set"):
        assert fluctuation_between(run, 50, 50, unit=unit).values.tolist() == [0, 0]
        there, back = (fluctuation_between(run, *steps, unit=unit) for steps in ((0, 100), (100, 0)))
        assert there.values.tolist() == back.values.tolist()


def test_a_run_of_random_routings_agrees_with_loops(traced, draws):
    recorded = [draws(2, 20, 6, 3, seed=seed) for seed in range(4)]
    found = fluctuation(traced(*(probe(i, e, num_experts=6) for i, e in enumerate(recorded))))
    for step in range(1, 4):
        for layer in range(2):
            same = most = 0
            for one, two in zip(recorded[step - 1][layer], recorded[step][layer], strict=True):
                first, second = {*one} - {-1}, {*two} - {-1}
                same += len(first & second)
                most += max(len(first), len(second))
            assert found.values[step - 1, layer] == pytest.approx(1 - same / most)


def test_a_swap_to_more_experts_is_compared_by_index(traced):
    before = probe(0, [[[0, 1], [1, 3]]])
    after = probe(1, [[[0, -1, -1], [1, 4, 5]]], router="null", num_experts=6)
    found = fluctuation(traced(before, after))
    # token 0 keeps one of two, token 1 one of three.
    assert found.item() == pytest.approx(1 - 2 / 5)
    assert found["num_experts"].item() == 6
    assert "top_k, null" in found.attrs["over"]


def test_the_last_recording_of_a_step_counts(traced):
    trace = traced(probe(0, [[[0]]]), probe(1, [[[3]]]), probe(1, [[[0]]]))
    assert fluctuation(trace).values.tolist() == [[0]]
    assert fluctuation_between(trace, 1, 1).values.tolist() == [0]


def test_lost_assignments_are_still_choices_unless_cut_away(traced):
    kept = [[[True, False]]]
    trace = traced(probe(0, [[[0, 1]]], kept=kept), probe(1, [[[0, 2]]], kept=kept))
    assert fluctuation(trace).item() == 0.5
    assert fluctuation(only(trace, is_kept=True)).item() == 0


def test_a_layer_without_choices_is_unknown(traced):
    assert np.isnan(fluctuation(traced(probe(0, [[[-1]]]), probe(1, [[[-1]]]))).item())


def test_what_is_missing_is_said(run, traced):
    with pytest.raises(LookupError, match="the trace holds no tokens of the probe text; record some first"):
        fluctuation(synthetic_trace(num_tokens=3))
    with pytest.raises(LookupError, match=r"was recorded at step 0; train on, or .*Sampling\(probe_every"):
        fluctuation(only(run, steps=range(10)))
    with pytest.raises(LookupError, match="the probe text was not recorded at step 7; it was at steps 0, 50, 100"):
        fluctuation_between(run, 0, 7)
    other = traced(probe(0, [[[0]]], ids=[1]), probe(1, [[[0]]], ids=[2]))
    with pytest.raises(
        ValueError, match=r"at step 1 it is not that of step 0 \(1 and 1 tokens\); .*only\(trace, steps"
    ):
        fluctuation(other)
    longer = traced(probe(0, [[[0]]]), probe(1, [[[0], [1]]]))
    with pytest.raises(ValueError, match=r"\(1 and 2 tokens\)"):
        fluctuation_between(longer, 0, 1)
