"""Every viewer gets everything it wants, at its own pace, and nobody waits for anybody."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.hub import stream
from workbench.hub.frames import DELTA, WHOLE, split_frames
from workbench.hub.run_store import RunStore
from workbench.hub.schema import CommandError
from workbench.hub.stream import FASTEST, VIEW_TOPICS, Fanout, Sink, Viewer

TOPICS = ("state", "commands", "loss_curves", "expert_load", "token_strip")


class Page(Sink):
    """A browser page: it drops frames that it has, by topic and number."""

    def __init__(self):
        self.content, self.seq, self.messages, self.is_busy, self.closed = {}, {}, [], False, None

    def write(self, data):
        self.messages.append(data)
        for frame, _ in split_frames(data):
            if frame.seq > self.seq.get(frame.topic, 0):
                before = [] if frame.kind == WHOLE else self.content.get(frame.topic, [])
                self.content[frame.topic] = [*before, frame.payload]
                self.seq[frame.topic] = frame.seq

    def is_writing(self):
        return self.is_busy

    def close(self, code, reason):
        self.closed = (code, reason)


def put(store, topic="loss_curves", kind=DELTA, payload=b"x"):
    store.put(topic, payload, kind=kind, step=0, time=0.0)


def advance(viewer, store, now):
    return viewer.advance(store, lambda data: data, now=now)


ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(TOPICS), st.sampled_from([DELTA, DELTA, WHOLE]), st.integers(0, 50)),
    st.tuples(st.just("want"), st.none() | st.lists(st.sampled_from(TOPICS), max_size=3), st.booleans()),
    st.tuples(st.just("rate"), st.sampled_from([0, 1, 20])),
    st.tuples(st.just("busy"), st.booleans()),
    st.tuples(st.just("tick"), st.sampled_from([0.0, 0.01, 0.1, 2.0])),
    st.tuples(st.just("reconnect"), st.booleans()),
)


@settings(max_examples=150)
@given(st.lists(ACTIONS, max_size=40), st.sampled_from([60, 2**20]))
def test_whatever_a_page_does_it_ends_with_what_it_wants_and_no_gap(actions, part_bytes):
    store, page, now, truth = RunStore(), Page(), 0.0, {}
    viewer, wanted = Viewer(page), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_PART_BYTES", part_bytes)
        for action in actions:
            if action[0] == "put":
                _, topic, kind, size = action
                payload = b"%d" % store.seq + b" " * size
                put(store, topic, kind, payload)
                truth[topic] = [payload] if kind == WHOLE else [*truth.get(topic, []), payload]
            elif action[0] == "want":
                wanted = action[1]
                table = {topic: page.seq.get(topic, 0) for topic in wanted or ()} if action[2] else wanted
                viewer.ask({"topics": None if wanted is None else table}, now=now)
            elif action[0] == "rate":
                viewer.ask({"rate": action[1]}, now=now)
            elif action[0] == "busy":
                page.is_busy = action[1]
            elif action[0] == "tick":
                now += action[1]
                advance(viewer, store, now)
            elif page.closed is None:
                # what the page has of each topic is what makes a resumption exact.
                viewer = Viewer(page, since=0 if wanted is None else max(page.seq.values(), default=0))
                if wanted is not None:
                    known = {topic: page.seq.get(topic, 0) for topic in {*wanted, "state", "commands"}}
                    viewer.ask({"topics": known}, now=now)
        page.is_busy = False
        viewer.ask({"rate": 20}, now=now)
        while advance(viewer, store, now) < math.inf:
            now += 1.0
    shown = set(TOPICS) if wanted is None else {*wanted, "state", "commands"}
    assert {topic: page.content.get(topic) for topic in shown} == {topic: truth.get(topic) for topic in shown}


def test_a_topic_that_was_left_goes_on_where_it_stopped():
    store, page = RunStore(), Page()
    viewer = Viewer(page)
    viewer.ask({"topics": ["loss_curves"]}, now=0.0)
    put(store, payload=b"1")
    advance(viewer, store, 0.0)
    viewer.ask({"topics": []}, now=0.0)
    put(store, payload=b"2")
    put(store, "state", WHOLE)
    advance(viewer, store, 1.0)
    assert page.content["loss_curves"] == [b"1"]
    viewer.ask({"topics": ["loss_curves"]}, now=1.0)
    advance(viewer, store, 2.0)
    assert page.content["loss_curves"] == [b"1", b"2"]
    assert [frame.seq for data in page.messages for frame, _ in split_frames(data)] == [1, 3, 2]


def test_a_page_that_says_at_once_what_it_wants_gets_nothing_else():
    store, page = RunStore(), Page()
    for topic in TOPICS:
        put(store, topic)
    viewer = Viewer(page)
    assert advance(viewer, store, 0.0) > 0.0
    viewer.ask({"topics": ["loss_curves"], "rate": 10}, now=0.0)
    advance(viewer, store, 0.0)
    assert set(page.content) == {"state", "commands", "loss_curves"}
    assert viewer.watched == {"state", "commands", "loss_curves"}


def test_a_page_that_says_nothing_gets_everything_after_a_moment():
    store, page = RunStore(), Page()
    put(store)
    viewer = Viewer(page)
    assert advance(viewer, store, 0.06) == math.inf
    assert page.content == {"loss_curves": [b"x"]}
    assert viewer.watched == VIEW_TOPICS


def test_a_hidden_page_gets_nothing_and_everything_once_it_is_seen():
    store, page = RunStore(), Page()
    viewer = Viewer(page)
    viewer.ask({"rate": 0}, now=0.0)
    put(store)
    put(store)
    assert advance(viewer, store, 100.0) == math.inf
    assert (page.messages, viewer.watched) == ([], frozenset())
    viewer.ask({"rate": 5}, now=100.0)
    advance(viewer, store, 101.0)
    assert page.content["loss_curves"] == [b"x", b"x"]


def test_no_page_gets_more_than_it_asked_for_nor_more_than_the_server_allows():
    for rate, expected in ((2, 20), (1000, 200)):
        store, page = RunStore(), Page()
        viewer = Viewer(page)
        viewer.ask({"rate": rate}, now=0.0)
        for tick in range(1000):
            put(store, "state", WHOLE)
            viewer.ask({"rate": rate}, now=tick / 100)  # asking again does not help
            advance(viewer, store, tick / 100)
        assert expected * 0.8 <= len(page.messages) <= expected + 1
        assert viewer.rate <= FASTEST


def test_who_still_reads_is_skipped_and_catches_up_from_the_newest_whole():
    store, page = RunStore(), Page()
    viewer = Viewer(page)
    page.is_busy = True
    for _ in range(50):
        put(store, kind=WHOLE, payload=bytes(100))
        assert advance(viewer, store, 1.0) < math.inf
    page.is_busy = False
    advance(viewer, store, 2.0)
    assert len(list(split_frames(page.messages[0]))) == 1


def test_who_never_reads_is_cut_off():
    store, page = RunStore(), Page()
    viewer = Viewer(page)
    put(store)
    page.is_busy = True
    for second in range(1, 30):
        advance(viewer, store, float(second))
    assert page.closed == (1013, "nothing was read for 20 s; open the stream again")


def test_who_reads_slowly_is_not_cut_off():
    store, page = RunStore(), Page()
    viewer = Viewer(page)
    for second in range(1, 100):
        put(store)
        page.is_busy = second % 10 != 0
        advance(viewer, store, float(second))
    assert page.closed is None


@pytest.mark.parametrize(
    "message",
    [
        {"rate": -1},
        {"rate": "10"},
        {"rate": True},
        {"rate": None},
        {"rate": float("inf")},
        {"topics": "state"},
        {"topics": [1]},
        {"topics": ["x" * 65]},
        {"topics": [str(number) for number in range(33)]},
        {"topics": {"state": -1}},
        {"topics": {"state": "1"}},
        {"topics": {"state": 2**64}},
        {"op": "pause"},
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(message):
    viewer = Viewer(Page())
    with pytest.raises(CommandError) as refused:
        viewer.ask(message, now=0.0)
    assert refused.value.code == 422


def test_a_number_from_the_future_does_not_keep_the_hub_busy():
    store, page = RunStore(), Page()
    put(store)
    viewer = Viewer(page, since=10**17)
    viewer.ask({"topics": {"state": 10**17, "loss_curves": 0}}, now=0.0)
    assert advance(viewer, store, 1.0) == math.inf
    assert page.content == {"loss_curves": [b"x"]}


def test_the_fan_out_joins_once_and_watches_what_its_viewers_do():
    async def scenario():
        store, framed, watched = RunStore(), [], []

        def frame(data):
            framed.append(data)
            return data

        fanout = Fanout(store, frame_message=frame, on_watch=lambda topics, number: watched.append((topics, number)))
        pages = [Page() for _ in range(5)]
        viewers = [fanout.join(page, since=0) for page in pages]
        for viewer in viewers:
            fanout.ask(viewer, {"topics": ["loss_curves"]})
        put(store)
        put(store, "state", WHOLE)
        await asyncio.sleep(0.03)
        assert len(framed) == 1
        assert all(page.messages == framed for page in pages)
        assert all(page.messages[0] is framed[0] for page in pages)
        assert watched[-1] == ({"loss_curves", "state", "commands"}, 5)
        for viewer in viewers:
            fanout.leave(viewer)
            fanout.leave(viewer)
        assert fanout.num_viewers == 0
        put(store)
        await asyncio.sleep(0.03)
        assert watched[-1] == (set(), 0)
        assert len(watched) <= 3
        assert len(framed) == 1
        fanout.close()

    asyncio.run(scenario())
