"""Texts with their routing: every token once, in the order of the text."""

import pytest
import torch

from workbench.core import Spec
from workbench.data import ByteTokenizer, Tokenizer
from workbench.model.generate import Sampling
from workbench.model.recorded import Answer, record_text, write_text
from workbench.trace import Recorder, synthetic_trace


class WithStart(Tokenizer):
    """Bytes behind a start token."""

    def __init__(self) -> None:
        super().__init__(name="started", vocab_size=257, end_id=256, start_id=0, fingerprint="started")

    encode_batch = ByteTokenizer.encode_batch
    token_bytes = ByteTokenizer.token_bytes
    special_name = ByteTokenizer.special_name
    decode = ByteTokenizer.decode
    save = ByteTokenizer.save


@pytest.fixture
def byte() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture
def model(make_model):
    return lambda router="top_k": make_model(vocab_size=257, router=Spec.parse(router))


def routing_of(recorder: Recorder):
    return recorder.trace()["routing"]


def test_a_recorded_text_holds_the_models_own_decisions(model, byte):
    moe, recorder = model(), Recorder(decode_piece=byte.piece)
    record_text(moe, byte, byte.encode("hello"), recorder, step=7)
    routing = routing_of(recorder)
    assert "".join(routing["piece"].values.tolist()) == "hello"
    assert set(routing["step"].values.tolist()) == {7}
    assert set(routing["phase"].values.tolist()) == {"prefill"}
    sites = moe(torch.tensor([byte.encode("hello")])).sites
    for index, site in enumerate(sites):
        assert routing["expert"].values[index].tolist() == site.routing.expert.tolist()
        torch.testing.assert_close(torch.tensor(routing["weight"].values[index]), site.routing.weight.detach())


def test_a_start_token_goes_first_as_in_generation(model):
    tokenizer, recorder = WithStart(), Recorder()
    record_text(model(), tokenizer, tokenizer.encode("ab"), recorder, step=0)
    assert routing_of(recorder)["token_id"].values.tolist() == [0, 97, 98]


def test_no_token_is_refused(model, byte):
    with pytest.raises(ValueError, match="expected at least one token of text to record"):
        record_text(model(), byte, [], Recorder(), step=0)


@pytest.mark.parametrize("router", ["top_k", "expert_choice"])
def test_a_written_text_is_recorded_with_all_tokens_but_the_last(router, model, byte):
    recorder = Recorder()
    moe, greedy = model(router), Sampling(max_new_tokens=6, temperature=0)
    written = write_text(moe, byte, "ab", greedy, recorder=recorder, step=3)
    assert written.num_tokens == 6
    assert written.is_recomputed == (router == "expert_choice")
    routing = routing_of(recorder)
    ids = routing["token_id"].values.tolist()
    assert ids[:2] == [97, 98]
    assert len(ids) == 2 + 5
    assert routing["position"].values.tolist() == list(range(7))
    # decisions of the whole text in one pass are those of the pass that is recorded last.
    whole = moe(torch.tensor([ids])).sites[-1].routing
    assert whole.assignments().expert.sort().values.tolist() == sorted(
        expert for expert in routing["expert"].values[-1].flatten().tolist() if expert >= 0
    )


def test_pieces_come_as_they_are_written_and_add_up(model, byte):
    pieces = []
    written = write_text(model(), byte, "ab", Sampling(max_new_tokens=12), on_text=pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == written.text
    assert all(pieces)


def test_the_text_ends_before_a_stop_string(model, byte):
    free = write_text(model(), byte, "ab", Sampling(max_new_tokens=20, temperature=0))
    stop = free.text[3:5]
    stopped = write_text(model(), byte, "ab", Sampling(max_new_tokens=20, temperature=0), stop=[stop])
    assert stopped.text == free.text[: free.text.find(stop)]


def test_nothing_asked_for_is_nothing_written(model, byte):
    recorder = Recorder()
    written = write_text(model(), byte, "ab", Sampling(max_new_tokens=0), recorder=recorder)
    assert (written.text, written.num_tokens) == ("", 0)
    assert "routing" not in recorder.trace()


def test_the_table_of_a_long_answer_stays_short_and_says_how_it_was_written():
    numbers = {"num_tokens": 9, "seconds": 3.0, "settings": "greedy", "trained_seconds": 61.0}
    answer = Answer(prompt="<&>" * 9999, text='"' * 9999, trace=synthetic_trace(), **numbers)
    shown = answer._repr_html_()
    assert len(shown.encode()) < 5000
    assert "9 tokens at 3 tokens/s" in shown
    assert "written by a model trained for 1 min 01 s; greedy" in shown
    assert "(29997 characters)" in shown
    assert str(answer) == answer.text
