"""A run whose texts come from a model with its experts on disk, and what viewers may change about it."""

import threading

import pytest

from workbench.core import Spec
from workbench.hub.commands import COMMANDS
from workbench.live.offloading import OFFLOAD_CHANGES, change_offload
from workbench.payloads.container import header_of

GREEDY = {"max_new_tokens": 6, "temperature": 0.0}


def test_texts_are_those_of_the_model_in_memory(session):
    expected = session.ask("The ", **GREEDY)
    offloaded = session.offload("30%", policy="lfu", prefetch="markov")
    got = session.ask("The ", **GREEDY)
    assert got.text == expected.text
    assert "offload" not in expected.trace.children and got.trace["offload"].sizes["event"] > 0
    assert offloaded.engine.ledger.misses > 0
    assert session.offload(None) is None and session.live.offloaded is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("workbench reader")]


def test_viewers_see_misses_and_residency_of_what_is_written(session):
    run = session.live.open()
    session.offload("30%")
    run.command("generate", prompt="The ", max_new_tokens=4, temperature=0.0, top_p=1.0, seed=0)
    for topic in ("offload_timeline", "residency"):
        header = header_of(run.store.since(0, topics=[topic])[0][48:])
        assert header["view"] == topic and not header["empty"]
    facts = run.state()["offload"]
    assert facts["policy"] == "lru" and 0 < facts["experts"] < facts["all_experts"] and 0 <= facts["hit_rate"] <= 1


def test_size_policy_and_prefetcher_change_by_command(session):
    offloaded = session.offload("30%")
    for op, args in (
        ("set_cache_size", {"experts": 20}),
        ("set_policy", {"name": "lfu_window"}),
        ("set_prefetcher", {"name": "markov"}),
    ):
        session.live.command(op, **args)
    engine = offloaded.engine
    assert (engine.capacity, engine.policy, engine.prefetcher) == (20, Spec("lfu_window"), Spec("markov"))
    session.live.command("set_prefetcher", name="none")
    assert engine.prefetcher is None
    assert session.ask("The ", **GREEDY).num_tokens == 6


def test_a_change_while_a_text_is_written_acts_between_two_tokens(session):
    offloaded = session.offload("30%")
    seen, changers = [], []

    def on_text(text):
        seen.append(offloaded.engine.capacity)
        if len(seen) == 2:
            send = threading.Thread(target=lambda: change_offload(offloaded, "set_cache_size", {"experts": 25}))
            changers.append(send)
            send.start()
            while not offloaded._changes:
                pass

    session.ask("The ", max_new_tokens=8, temperature=1.0, seed=3, on_text=on_text)
    changers[0].join(10)
    assert seen[0] == seen[1] < 25, "nothing changes in the middle of a token"
    assert 25 in seen[2:] and offloaded.engine.budget_bytes >= 25 * offloaded.engine.store.shape.num_bytes


def test_what_the_engine_refuses_is_said_and_changes_nothing(session):
    with pytest.raises(ValueError, match="keeps every expert in memory"):
        change_offload(None, "set_policy", {"name": "lru"})
    offloaded = session.offload("30%")
    with pytest.raises(LookupError, match="did you mean 'lru'"):
        session.live.command("set_policy", name="lruu")
    with pytest.raises(ValueError, match="looks into the future"):
        session.live.command("set_policy", name="min")
    with pytest.raises(ValueError, match="one token asks for 2 experts"):
        session.live.command("set_cache_size", experts=1)
    assert offloaded.engine.policy == Spec("lru")
    with pytest.raises(ValueError, match="must be at least"):
        session.offload("1KiB")
    assert session.live.offloaded is offloaded


def test_every_change_has_a_command():
    assert OFFLOAD_CHANGES.keys() <= COMMANDS.keys()
