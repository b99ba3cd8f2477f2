"""Which experts go together, as a payload: the numbers of `workbench.analysis`, kinds of tokens apart."""

import numpy as np
import pytest

from workbench.analysis import layer_transition, pair_affinity
from workbench.payloads import expert_flow_payload
from workbench.trace import synthetic_trace


def test_the_tables_are_those_of_the_analysis(decode):
    trace = synthetic_trace(num_tokens=300, num_experts=8, phase="prefill")
    header, arrays = decode(expert_flow_payload(trace))
    assert [kind["key"] for kind in header["kinds"]] == ["prefill"]
    pairs, going = pair_affinity(trace), layer_transition(trace)
    assert np.allclose(arrays["prefill.ratio"], pairs.values, rtol=1e-6, equal_nan=True)
    assert np.allclose(arrays["prefill.expected"], pairs["expected"].values, rtol=1e-6)
    assert np.allclose(arrays["prefill.next_share"], going.values, rtol=1e-6, equal_nan=True)
    assert np.allclose(arrays["prefill.next_tokens"], going["tokens"].values, rtol=1e-6)
    assert header["kinds"][0]["tokens"] == [300] * 4
    assert header["badge"] == "synthetic"


def test_two_experts_that_always_go_together_are_counted_by_hand(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, "a b c d"),), layers=2, experts=4)
    routing["expert"][0] = [[0, 1], [0, 1], [2, 3], [0, 2]]
    routing["expert"][1] = [[1, -1], [1, -1], [2, -1], [3, -1]]
    _, arrays = decode(expert_flow_payload(trace_of(routing=routing)))
    share = arrays["probe.share"][0]
    assert (share[0, 1], share[0, 2], share[2, 3], share[1, 3]) == (0.5, 0.25, 0.25, 0)
    assert arrays["probe.next_share"][0, 0].tolist() == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.14)
    assert arrays["probe.next_tokens"][0].tolist() == [1.5, 1.0, 1.0, 0.5]


def test_kinds_of_tokens_stay_apart_and_the_newest_probe_counts(decode, samples):
    header, arrays = decode(expert_flow_payload(samples.whole_trace()))
    assert [(kind["key"], kind["name"]) for kind in header["kinds"]] == [
        ("probe", "probe text at step 200"),
        ("prefill", "prompts"),
        ("decode", "generated text"),
    ]
    count = len(samples.pieces_of(samples.TEXT))
    assert header["kinds"][0]["tokens"] == [count] * 4
    assert header["kinds"][0]["routers"] == ["expert_choice"], "what an older router did is not mixed in"
    assert arrays["probe.share"].shape == (4, 16, 16)


def test_one_layer_leads_nowhere_and_one_expert_per_token_shares_nothing(decode):
    trace = synthetic_trace(num_tokens=40, num_layers=1, top_k=1, phase="prefill")
    header, arrays = decode(expert_flow_payload(trace))
    assert arrays["prefill.next_share"].shape == (0, 16, 16)
    assert np.isnan(arrays["prefill.ratio"]).all()
    assert header["kinds"][0]["layers"] == [0]


def test_a_wide_model_is_cut_and_the_view_says_so(decode, samples, trace_of):
    passages = (("eval", 1, samples.TEXT), ("prefill", 1, "a b"))
    routing = samples.routing_group(passages, layers=6, experts=64)
    header, arrays = decode(expert_flow_payload(trace_of(routing=routing), max_pairs=3 * 64 * 64))
    assert arrays["probe.share"].shape == (3, 64, 64)
    assert arrays["probe.next_share"].shape == (2, 64, 64)
    said = " ".join(header["statements"])
    assert "Left out, so that this view stays small: prompts." in said
    assert "Showing the first 3 of 6 layers" in said


def test_a_shadow_is_not_counted(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, samples.TEXT),))
    alone, watched = (expert_flow_payload(trace_of(routing=r)) for r in (routing, samples.with_shadow(routing)))
    assert np.array_equal(decode(alone)[1]["probe.share"], decode(watched)[1]["probe.share"])


def test_layers_that_run_twice_count_their_first_pass(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, samples.TEXT),), layers=2)
    routing["layer"][:], routing["iteration"][:] = 0, [0, 1]
    header, arrays = decode(expert_flow_payload(trace_of(routing=routing)))
    assert header["kinds"][0]["layers"] == [0]
    served = np.bincount(routing["expert"].values[0].ravel(), minlength=16) / routing.sizes["token"]
    assert np.allclose(arrays["probe.share"][0].diagonal(), served)


def test_nothing_recorded_says_so(decode, samples, trace_of):
    for trace in (trace_of(), trace_of(routing=samples.routing_group((("eval", 1, "a"),)).isel(token=slice(0)))):
        assert decode(expert_flow_payload(trace))[0]["empty"] == "No routed token has been recorded in this trace."
