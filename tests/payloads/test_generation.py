"""A text while it is written, as a payload."""

import numpy as np

from workbench.payloads import generation_payload
from workbench.payloads.generation import Written


def test_the_last_prompt_and_what_followed_it_are_sent(decode, samples):
    trace = samples.whole_trace()
    settings = {"max_new_tokens": 16, "temperature": 0.8, "top_p": 0.95, "seed": 0}
    payload = generation_payload(trace, prompt="The ship ", text="sailed", status="writing", settings=settings)
    header, arrays = decode(payload)
    assert header["pieces"][:4] == ["The", " ship", " ", "sailed"]
    assert (header["prompt"], header["text"], header["status"]) == ("The ship ", "sailed", "writing")
    assert header["settings"] == settings
    assert [header["phases"][i] for i in arrays["phase"]] == ["prefill"] * 3 + ["decode"] * 13
    rows = arrays["index"]
    routing = trace["routing"].to_dataset()
    assert routing["piece"].values[rows].tolist() == header["pieces"]
    assert np.array_equal(arrays["expert"][:, 0], routing["expert"].values[4][rows])


def test_tokens_at_hand_need_no_trace(decode):
    expert = np.array([[[1, 0]], [[2, -1]]])
    written = Written(
        pieces=["a", "b"],
        is_prompt=np.array([True, False]),
        expert=expert,
        weight=np.full((2, 1, 2), 0.5),
        num_experts=4,
    )
    header, arrays = decode(generation_payload(written, prompt="a", text="b", status="finished"))
    assert arrays["expert"].tolist() == expert.tolist()
    assert arrays["kept"].tolist() == [[[1, 1]], [[1, 0]]]
    assert [header["phases"][i] for i in arrays["phase"]] == ["prefill", "decode"]
    assert header["experts"] == 4 and header["places"] == [{"name": "layer 0", "layer": 0}]


def test_before_the_first_token_there_is_a_prompt_and_nothing_else(decode, samples, trace_of):
    without = trace_of(routing=samples.routing_group((("eval", 1, "a b"),)))
    for source in (None, trace_of(), without):
        header, arrays = decode(generation_payload(source, prompt="Once", status="waiting"))
        assert header["empty"] is None and header["prompt"] == "Once" and header["pieces"] == []
        assert arrays["expert"].shape[0] == 0


def test_a_failure_has_its_reason(decode):
    header, _ = decode(generation_payload(None, prompt="x", status="failed", reason="top_p must be above 0"))
    assert (header["status"], header["reason"]) == ("failed", "top_p must be above 0")


def test_a_long_text_keeps_its_end_and_says_so(decode, samples):
    header, arrays = decode(generation_payload(samples.whole_trace(), max_tokens=5))
    assert len(header["pieces"]) == len(arrays["expert"]) == 5
    assert "Showing the newest 5 of 16 tokens." in header["statements"]
