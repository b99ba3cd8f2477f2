"""Whoever reads a store, whenever and however often, ends with the same content and no gap."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.hub.frames import DELTA, WHOLE, split_frames
from workbench.hub.run_store import MAX_DELTAS, RunStore

TOPICS = ("state", "loss_curves", "commands")
PUTS = st.tuples(
    st.just("put"), st.sampled_from(TOPICS), st.sampled_from([DELTA, DELTA, DELTA, WHOLE]), st.integers(0, 60)
)
READS = st.tuples(st.just("read"), st.integers(0, 2), st.sampled_from([None, 1, 200]))
CUTS = st.tuples(st.just("cut"), st.integers(0, 2))


class Viewer:
    """Applies frames the way a view does."""

    def __init__(self) -> None:
        self.seq, self.content = 0, {}

    def read(self, store: RunStore, limit: int | None = None) -> None:
        data, cursor = store.since(self.seq, limit_bytes=limit)
        seen = self.seq
        for frame, _ in split_frames(data):
            assert frame.seq > seen
            seen = frame.seq
            rows = [] if frame.kind == WHOLE else self.content.get(frame.topic, [])
            self.content[frame.topic] = [*rows, frame.payload]
        assert seen <= cursor
        self.seq = cursor


def put(store: RunStore, payload: bytes = b"x", *, topic: str = "loss_curves", kind: int = DELTA) -> int:
    return store.put(topic, payload, kind=kind, step=0, time=0.0)


@settings(max_examples=300)
@given(st.lists(st.one_of(PUTS, READS, CUTS), max_size=60))
def test_any_interleaving_gives_every_viewer_the_same_content(actions):
    source, mirror, truth = RunStore(), RunStore(), {}
    viewers = [Viewer(), Viewer(), Viewer()]
    for action in actions:
        if action[0] == "put":
            _, topic, kind, size = action
            payload = b'{"n":%d}' % len(truth) + b" " * size
            assert put(source, payload, topic=topic, kind=kind) == source.seq
            truth[topic] = [payload] if kind == WHOLE else [*truth.get(topic, []), payload]
        elif action[0] == "read":
            mirror.insert(source.since(mirror.seq)[0])
            viewers[action[1]].read(mirror, action[2])
        else:
            mirror.insert(source.since(0)[0])  # a link that starts over sends what is here already
    mirror.insert(source.since(mirror.seq)[0])
    for viewer in [*viewers, Viewer()]:
        while viewer.seq < mirror.seq:
            viewer.read(mirror, 100)
        assert viewer.content == truth
    assert mirror.since(0) == source.since(0)


@given(st.lists(PUTS, max_size=80))
def test_a_small_cap_is_kept_and_what_is_left_has_no_gap(puts):
    store, viewer, truth, dropped = RunStore(cap_bytes=400), Viewer(), {}, set()
    for _, topic, kind, size in puts:
        given_seq = put(store, bytes(size), topic=topic, kind=kind)
        assert given_seq == 0 or given_seq == store.seq
        assert store.num_bytes <= 400
        if given_seq:
            truth[topic] = [bytes(size)] if kind == WHOLE else [*truth.get(topic, []), bytes(size)]
            dropped.discard(topic)
        else:
            assert kind == DELTA
            assert store.needs_whole(topic)
        viewer.read(store)
        dropped |= {name for name in TOPICS if store.needs_whole(name)}
    assert {k: v for k, v in viewer.content.items() if k not in dropped} == {
        k: v for k, v in truth.items() if k not in dropped
    }


def test_a_viewer_behind_a_whole_frame_starts_from_it():
    store = RunStore()
    for payload in (b"1", b"2"):
        put(store, payload)
    put(store, b"all", kind=WHOLE)
    put(store, b"3")
    frames = [frame for frame, _ in split_frames(store.since(1)[0])]
    assert [(frame.payload, frame.kind, frame.seq) for frame in frames] == [(b"all", WHOLE, 3), (b"3", DELTA, 4)]


def test_viewers_at_the_same_place_share_the_same_bytes():
    store = RunStore()
    put(store)
    assert store.since(0)[0] is store.since(0)[0]
    before = store.since(0)[0]
    put(store)
    assert store.since(0)[0] is not before


def test_only_the_wanted_topics_come():
    store = RunStore()
    put(store, b"{}", topic="state", kind=WHOLE)
    put(store)
    data, cursor = store.since(0, topics=["state"])
    assert [frame.topic for frame, _ in split_frames(data)] == ["state"]
    assert cursor == 2


def test_a_message_ends_after_the_frame_that_reaches_the_limit():
    store = RunStore()
    for _ in range(3):
        put(store, bytes(100))
    data, cursor = store.since(0, limit_bytes=150)
    assert (len(list(split_frames(data))), cursor) == (1, 1) or (len(list(split_frames(data))), cursor) == (2, 2)
    assert store.since(2, limit_bytes=1)[1] == 3


def test_a_viewer_ahead_of_a_mirror_that_is_catching_up_gets_nothing_twice():
    store = RunStore()
    put(store)
    assert store.since(5) == (b"", 5)


def test_many_deltas_ask_for_a_whole():
    store = RunStore()
    put(store, kind=WHOLE)
    for _ in range(MAX_DELTAS):
        put(store)
    assert not store.needs_whole("loss_curves")
    put(store)
    assert store.needs_whole("loss_curves")
    put(store, kind=WHOLE)
    assert not store.needs_whole("loss_curves")


def test_many_bytes_of_deltas_ask_for_a_whole_and_a_large_whole_does_not():
    store = RunStore()
    put(store, bytes(5 * 2**20), kind=WHOLE)
    assert not store.needs_whole("loss_curves")
    for _ in range(5):
        put(store, bytes(2**20))
    assert store.needs_whole("loss_curves")


def test_past_the_cap_the_largest_topic_goes_and_waits_for_a_whole():
    store = RunStore(cap_bytes=1000)
    put(store, b'{"id": 1}', topic="state", kind=WHOLE)
    put(store, bytes(900))
    put(store, bytes(100), topic="commands")
    assert store.needs_whole("loss_curves")
    assert put(store) == 0
    assert store.state == {"id": 1}
    assert put(store, bytes(200), kind=WHOLE) == 4
    assert put(store) == 5


def test_the_state_is_the_newest_one():
    store = RunStore()
    assert store.state == {}
    for step in (1, 2):
        put(store, json.dumps({"step": step}).encode(), topic="state", kind=WHOLE)
        assert store.state == {"step": step}


def test_insert_says_how_many_frames_were_new():
    source, mirror = RunStore(), RunStore()
    put(source)
    put(source)
    assert mirror.insert(source.since(0)[0]) == 2
    assert mirror.insert(source.since(0)[0]) == 0


def test_listeners_hear_every_change_until_they_leave():
    store, heard = RunStore(), []
    forget = store.listen(lambda: heard.append(store.seq))
    put(store)
    put(store)
    forget()
    put(store)
    assert heard == [1, 2]


def test_wait_returns_when_a_frame_comes_and_not_before():
    store = RunStore()
    assert not store.wait(0, timeout=0.01)
    threading.Timer(0.02, put, [store]).start()
    assert store.wait(0, timeout=5)


@pytest.mark.slow
def test_threads_that_publish_at_once_lose_nothing():
    store = RunStore()

    def publish() -> None:
        for _ in range(300):
            put(store)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    viewer = Viewer()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        viewer.read(store)
    viewer.read(store)
    assert len(viewer.content["loss_curves"]) == store.seq == 1200
