"""A run whose texts come from a model with its experts on disk, and what viewers may change about it."""

import json
import threading

import pytest

from workbench.core import Spec
from workbench.core.units import human_bytes
from workbench.hub.commands import COMMANDS
from workbench.live.offloading import OFFLOAD_CHANGES, change_offload
from workbench.offload.compute.host_compute import HostRule
from workbench.offload.config import OffloadConfig
from workbench.payloads.container import header_of
from workbench.trace.schema import TIERS

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
        assert header["room"].keys() == {"host"} and header["pages_each"] is None
    facts = run.state()["offload"]
    assert (facts["policy"], facts["near"], facts["all_slots"]) == ("lru", "host", 32)
    assert facts["least_slots"] == 2 <= facts["slots"] < facts["most_slots"] == 32 and 0 <= facts["hit_rate"] <= 1
    # no more lie there than there is room for, and every expert is somewhere.
    assert 0 < facts["experts"]["host"] <= facts["slots"] and facts["experts"]["device"] == 0
    assert sum(facts["experts"].values()) == 32 and json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_every_option_can_be_given_and_two_have_a_short_form(session):
    config = OffloadConfig(budget="40%", host_budget="30%", host_policy=Spec("lfu"), inclusive=True, threads=1)
    engine = session.offload(config, policy="lfu:in_cache=True", prefetch=Spec("markov")).engine
    assert (engine.policy, engine.prefetcher) == (Spec("lfu", {"in_cache": True}), Spec("markov"))
    assert (engine.host_policy, engine.host.is_inclusive) == (Spec("lfu"), True)
    engine = session.offload(config).engine
    assert (engine.policy, engine.prefetcher) == (Spec("lru"), None)
    engine = session.offload().engine
    assert engine.budget_bytes == engine.store.dense_bytes // 4 and engine.host is None
    with pytest.raises(ValueError, match="give host_compute or the format, not both"):
        session.offload(OffloadConfig(host_budget="30%", host_compute=True, format=Spec("int8")))
    assert session.live.offloaded.engine is engine


def test_a_tier_in_the_host_is_named_with_its_budget_its_policy_and_who_lies_there(session):
    run = session.live.open()
    session.offload(OffloadConfig(budget="30%", host_budget="40%", host_policy=Spec("lfu"), inclusive=True))
    run.command("generate", prompt="The ", max_new_tokens=6, temperature=0.0, top_p=1.0, seed=0)
    engine, facts = run.offloaded.engine, run.state()["offload"]
    assert (facts["near"], facts["host_policy"], facts["is_inclusive"]) == ("device", "lfu", True)
    assert facts["room"] == {"device": facts["slots"], "host": engine.host.capacity}
    budgets = {"device": engine.budget_bytes, "host": int(0.4 * engine.store.dense_bytes)}
    assert facts["budgets"] == {tier: human_bytes(count) for tier, count in budgets.items()}
    tier = engine.residency()
    assert facts["experts"] == {name: int((tier == at).sum()) for at, name in enumerate(TIERS)}
    assert all(facts["experts"].values()) and facts["host_computed"] is None
    header = header_of(run.store.since(0, topics=["residency"])[0][48:])
    assert (header["room"], header["budgets"]) == (facts["room"], facts["budgets"])


def test_what_is_shown_is_of_the_offloaded_model_whatever_is_trained_and_watched(session):
    run = session.live.open()

    def shown(topic):
        assert run.outlet.settle()
        return header_of(run.store.since(0, topics=[topic])[0][48:])

    assert "keeps every expert in memory" in shown("residency")["empty"] and shown("offload_timeline")["empty"]
    session.offload("30%")
    assert not shown("residency")["empty"] and "nothing was asked for yet" in shown("offload_timeline")["empty"]
    run.command("generate", prompt="The ", max_new_tokens=3, temperature=0.0, top_p=1.0, seed=0)
    # training records routing and no offloading, which must not take the place of what a text showed.
    run.watch("me", ["residency", "offload_timeline", "token_strip"])
    list(session.train(2, progress=False))
    assert not shown("residency")["empty"] and not shown("offload_timeline")["empty"]
    session.offload(None)
    assert "keeps every expert in memory" in shown("residency")["empty"] and shown("offload_timeline")["empty"]


def test_what_the_host_computed_is_counted(session, monkeypatch):
    run = session.live
    offloaded = session.offload(OffloadConfig(budget="30%", host_budget="70%", host_compute=True))
    monkeypatch.setattr(HostRule, "is_cheaper", lambda *some: True)
    session.ask("The ", **GREEDY)
    facts = run.state()["offload"]
    assert facts["host_computed"] == offloaded.engine.ledger.host_computed > 0
    assert facts["requests"] == offloaded.engine.ledger.requests and "not bit-exact" in facts["precision"]


def test_a_slot_holds_a_page_where_an_expert_has_several(session):
    run = session.live.open()
    offloaded = session.offload(OffloadConfig(budget="30%", format=Spec("int4", {"levels": 2}), mean_levels=1.5))
    facts = run.state()["offload"]
    # 32 experts of two pages in the store, of which 48 are ever asked for; two experts of a layer have four at most.
    assert (facts["pages_each"], facts["all_slots"], facts["most_slots"]) == (1.5, 48, 48)
    assert facts["least_slots"] == offloaded.engine.top_k and 2 <= facts["least_slots"] <= 4
    assert facts["slots"] <= 48 and sum(facts["experts"].values()) == 32
    with pytest.raises(ValueError, match=r"one token asks for [234] pages of experts of a layer"):
        run.command("set_cache_size", slots=1)
    run.command("set_cache_size", slots=20)
    assert run.state()["offload"]["slots"] == 20
    run.command("generate", prompt="The ", max_new_tokens=4, temperature=0.0, top_p=1.0, seed=0)
    for topic in ("offload_timeline", "residency"):
        assert header_of(run.store.since(0, topics=[topic])[0][48:])["pages_each"] == 1.5
    words = [record["reason"] for record in run.outlet.journal.records if record["op"] == "set_cache_size"]
    assert "room for 20 pages of experts" in words


def test_size_policy_and_prefetcher_change_by_command(session):
    offloaded = session.offload("30%")
    for op, args in (
        ("set_cache_size", {"slots": 20}),
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
            send = threading.Thread(target=lambda: change_offload(offloaded, "set_cache_size", {"slots": 25}))
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
        session.live.command("set_cache_size", slots=1)
    assert offloaded.engine.policy == Spec("lru")
    with pytest.raises(ValueError, match="must be at least"):
        session.offload("1KiB")
    assert session.live.offloaded is offloaded


def test_every_change_has_a_command():
    assert OFFLOAD_CHANGES.keys() <= COMMANDS.keys()
