"""Tokens cut into passages."""

from workbench.payloads.passages import passages_of


def test_names_and_kinds_follow_phase_and_probe(samples):
    routing = samples.routing_group(
        (("train", 10, "a b"), ("eval", 10, "c d"), ("eval", 10, "e"), ("prefill", 11, "f g")), decode=" h"
    )
    routing["is_probe"][4] = False
    found, statements = passages_of(routing, max_tokens=100, max_passage=100)
    assert [(p.kind, p.name) for p in found] == [
        ("train", "Training batch at step 10"),
        ("probe", "Probe text at step 10"),
        ("eval", "Held-out text at step 10"),
        ("generate", "Prompt and generated text"),
    ]
    assert [p.tokens.tolist() for p in found] == [[0, 1], [2, 3], [4], [5, 6, 7]]
    assert statements == []


def test_a_prompt_alone_and_a_decode_without_its_prompt_are_named_so(samples):
    routing = samples.routing_group((("decode", 1, "a b"), ("prefill", 2, "c")))
    found, _ = passages_of(routing, max_tokens=100, max_passage=100)
    assert [p.name for p in found] == ["Generated text", "Prompt"]


def test_every_kind_keeps_a_passage_when_few_fit(samples):
    train = tuple(("train", step, "a b") for step in range(50))
    routing = samples.routing_group((*train, ("prefill", 50, "c d")))
    found, statements = passages_of(routing, max_tokens=10, max_passage=100)
    assert {p.kind for p in found} == {"train", "generate"}
    assert len(found) < 10
    assert statements == [f"Showing {len(found)} of 51 recorded passages, evenly spaced in time."]
