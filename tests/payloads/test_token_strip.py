"""The `/routing` group as a payload."""

import numpy as np

from workbench.payloads import token_strip_payload
from workbench.trace import synthetic_trace


def test_experts_weights_and_drops_are_those_of_the_trace(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 50, samples.TEXT),))
    header, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    for name in ("expert", "weight", "kept"):
        expected = routing[name].transpose("token", "site", "slot").values
        assert np.array_equal(arrays[name], expected), name
    assert header["pieces"] == samples.pieces_of(samples.TEXT)
    assert arrays["token_id"].tolist() == routing["token_id"].values.tolist()
    assert [place["name"] for place in header["places"]] == [f"layer {i}" for i in range(4)]
    assert header["experts"] == 16


def test_choices_come_by_weight_and_empty_slots_last(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, "a"),), layers=1, slots=4)
    routing["expert"][0, 0] = [7, -1, 3, 9]
    routing["weight"][0, 0] = [0.2, 0.0, 0.5, 0.2]
    routing["kept"][0, 0] = [True, False, True, False]
    _, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    assert arrays["expert"][0, 0].tolist() == [3, 7, 9]
    assert arrays["weight"][0, 0].tolist() == np.float32([0.5, 0.2, 0.2]).tolist()
    assert arrays["kept"][0, 0].tolist() == [1, 1, 0]


def test_after_a_swap_a_layer_is_one_place_with_another_router(decode, samples, trace_of):
    probe = tuple(("eval", step, samples.TEXT) for step in (100, 150))
    routing = samples.routing_group(probe, swap_step=120)
    assert routing.sizes["site"] == 8
    header, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    assert len(header["places"]) == 4
    assert [passage["routers"] for passage in header["passages"]] == [["top_k"] * 4, ["expert_choice"] * 4]
    half = routing.sizes["token"] // 2
    expert = routing["expert"].transpose("token", "site", "slot").values
    assert np.array_equal(arrays["expert"], np.concatenate([expert[:half, :4], expert[half:, 4:]]))


def test_a_token_that_a_layer_did_not_route_has_no_expert(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, "a b c"),))
    routing["is_routed"][2, 1] = False
    routing["expert"][2, 1] = 5
    _, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    assert (arrays["expert"][1, 2] == -1).all()
    assert (arrays["expert"][0, 2] >= 0).all()


def test_a_prompt_and_what_was_written_after_it_are_one_passage(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 5, "a b"), ("prefill", 5, "once upon")), decode=" a time")
    routing["step"][-2:] = [6, 7]
    header, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    assert [(p["kind"], p["start"], p["stop"]) for p in header["passages"]] == [("probe", 0, 2), ("generate", 2, 6)]
    assert [header["phases"][i] for i in arrays["phase"]] == ["eval"] * 2 + ["prefill"] * 2 + ["decode"] * 2


def test_two_readings_at_the_same_step_are_two_passages(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 5, "a b c"), ("eval", 5, "a b c")))
    header, _ = decode(token_strip_payload(trace_of(routing=routing)))
    assert [(p["start"], p["stop"]) for p in header["passages"]] == [(0, 3), (3, 6)]


def test_sequences_decoded_in_turn_are_read_one_after_the_other(decode, samples, trace_of):
    routing = samples.routing_group((("prefill", 1, "a b"),), decode=" c d e f")
    routing["sequence"][:] = [0, 1, 0, 1, 0, 1]
    routing["position"][:] = [0, 0, 1, 1, 2, 2]
    header, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    assert arrays["index"].tolist() == [0, 2, 4, 1, 3, 5]
    assert header["pieces"] == ["a", " c", " e", " b", " d", " f"]


def test_thinning_and_cutting_are_stated_and_keep_the_first_and_last_passage(decode, samples, trace_of):
    routing = samples.routing_group(tuple(("eval", step, "a b c d") for step in range(0, 400, 10)), slots=1, layers=1)
    header, arrays = decode(token_strip_payload(trace_of(routing=routing), max_choices=40))
    assert [header["passages"][i]["step"] for i in (0, -1)] == [0, 390]
    assert len(arrays["index"]) == 40
    assert header["statements"] == [
        "Recorded: training: none; probe text: every 50th step; prefill and decode: every token.",
        "Showing 10 of 40 recorded passages, evenly spaced in time.",
    ]
    header, arrays = decode(token_strip_payload(trace_of(routing=routing), max_passage=3))
    assert header["statements"][-1] == "Passages longer than 3 tokens are cut there."
    assert len(arrays["index"]) == 3 * 40


def test_shadow_routers_and_second_passes_have_names_of_their_own(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, "a b"),), layers=3)
    routing["layer"][:] = [0, 0, 0]
    routing["iteration"][:] = [0, 1, 0]
    routing["is_shadow"][:] = [False, False, True]
    header, _ = decode(token_strip_payload(trace_of(routing=routing)))
    assert [p["name"] for p in header["places"]] == [
        "layer 0, pass 1",
        "layer 0, pass 2",
        "layer 0, pass 1 (shadow router)",
    ]


def test_domains_are_named_and_unknown_ones_are_minus_one(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 1, "a b"), ("prefill", 2, "c")))
    header, arrays = decode(token_strip_payload(trace_of(routing=routing)))
    assert header["domains"] == ["python_code"]
    assert arrays["domain"].tolist() == [0, 0, -1]


def test_nothing_recorded_says_so(decode, samples, trace_of):
    empty = samples.routing_group((("eval", 1, "a b"),)).isel(token=slice(0))
    for trace in (trace_of(), trace_of(routing=empty)):
        assert decode(token_strip_payload(trace))[0]["empty"] == "No routed token has been recorded in this trace."


def test_the_payload_of_a_wide_model_is_bounded(samples, trace_of):
    routing = samples.routing_group((("eval", 1, samples.TEXT * 6),), layers=48, experts=64, slots=8)
    assert len(token_strip_payload(trace_of(routing=routing))) < 2_000_000


def test_a_made_up_trace_carries_a_badge_and_says_so(decode):
    header, arrays = decode(token_strip_payload(synthetic_trace(num_tokens=20, num_layers=2, phase="prefill")))
    assert header["badge"] == "synthetic"
    assert header["statements"][0] == "This trace was drawn at random for labs and tests; no model was measured."
    assert arrays["expert"].shape == (20, 2, 2)
