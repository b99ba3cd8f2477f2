import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer

from workbench.data import ByteTokenizer, load_tokenizer

# Everything that UTF-8 can hold: half of a surrogate pair is no character.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def test_a_word_by_hand(byte):
    assert byte.encode("aé€") == [0x61, 0xC3, 0xA9, 0xE2, 0x82, 0xAC]
    assert byte.decode([0x61, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 256]) == "aé€"
    assert byte.pieces([0x61, 0xC3, 0xA9, 10, 0, 256]) == ["a", "<0xC3>", "<0xA9>", "\n", "<0x00>", "<|endoftext|>"]


@given(text=TEXTS)
def test_every_text_comes_back(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_that_spells_the_end_token_stays_text(byte):
    ids = byte.encode("a<|endoftext|>b")
    assert byte.end_id not in ids
    assert byte.decode(ids) == "a<|endoftext|>b"


def test_every_byte_counts_one_and_the_end_token_none(byte):
    assert torch.equal(byte.byte_counts, torch.tensor([1] * 256 + [0]))


@given(ids=st.lists(st.integers(0, 256), max_size=40))
def test_a_stream_gives_what_decoding_at_once_gives(ids):
    tokenizer = ByteTokenizer()
    stream = tokenizer.stream()
    assert "".join([stream.push(token) for token in ids]) + stream.flush() == tokenizer.decode(ids)


def test_a_stream_never_gives_half_a_character(byte):
    stream = byte.stream()
    assert [stream.push(token) for token in "é€".encode()] == ["", "é", "", "", "€"]
    assert stream.flush() == ""
    assert stream.push(0xE2) == ""
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize("token_id", [-1, 257])
def test_an_id_of_another_vocabulary_is_refused(byte, token_id):
    with pytest.raises(ValueError, match=rf"between 0 and 256 for tokenizer 'byte', got {token_id}; was it made with"):
        byte.decode([token_id])


def test_a_saved_byte_tokenizer_opens_here_as_itself(byte, tmp_path):
    byte.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is ByteTokenizer
    assert again.fingerprint == byte.fingerprint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("byte")
    ByteTokenizer().save(folder)
    return folder


@pytest.fixture(scope="module")
def library(saved):
    return LibraryTokenizer.from_file(str(saved / "tokenizer.json"))


@given(text=TEXTS)
def test_a_saved_byte_tokenizer_gives_the_same_ids_in_the_tokenizers_library(text, library):
    assert library.encode(text).ids == ByteTokenizer().encode(text)


def test_a_saved_byte_tokenizer_names_its_end_token(saved, library):
    assert json.loads((saved / "tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"
    assert library.token_to_id("<|endoftext|>") == 256
