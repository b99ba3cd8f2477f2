import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as LibraryTokenizer

from workbench.data import TrainedTokenizer, bundled, load_tokenizer, open_corpus

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MIXED = load_tokenizer("mixed_bpe_4096")
MIXED_LIBRARY = LibraryTokenizer.from_file(str(bundled("tokenizers/mixed_bpe_4096") / "tokenizer.json"))


def sentencepiece(folder) -> TrainedTokenizer:
    """A small vocabulary laid out as Llama's and Mixtral's: `▁` for a blank, bytes where a character is missing."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "hi", "▁hi"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("h", "i"), ("▁", "hi")]
    library = LibraryTokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    library.save(str(folder / "tokenizer.json"))
    config = {"eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)


def test_the_bundled_vocabulary_is_exactly_4096_with_every_byte_in_it(bpe):
    assert bpe.vocab_size == 4096
    assert bpe.piece(bpe.end_id) == "<|endoftext|>"
    assert {bpe.token_bytes(index) for index in range(4096)} >= {bytes([byte]) for byte in range(256)}
    assert len({bpe.token_bytes(index) for index in range(4096)}) == 4096


def test_the_card_tells_the_checksum_and_the_corpus_of_the_bundled_vocabulary():
    folder = bundled("tokenizers/mixed_bpe_4096")
    card = (folder / "README.md").read_text()
    assert hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest() in card
    assert f"fingerprint `{open_corpus('mixed').fingerprint[:16]}`" in card


@given(text=TEXTS)
def test_every_text_comes_back_and_its_bytes_are_counted_exactly(text):
    ids = MIXED.encode(text)
    assert MIXED.decode(ids) == text
    assert MIXED.byte_counts[ids].sum() == len(text.encode())


@given(ids=st.lists(st.integers(0, 4095), max_size=40))
def test_a_stream_gives_what_decoding_at_once_gives(ids):
    stream = MIXED.stream()
    assert "".join([stream.push(token) for token in ids]) + stream.flush() == MIXED.decode(ids)


@given(ids=st.lists(st.integers(1, 4095), max_size=40))
def test_decoding_agrees_with_the_tokenizers_library(ids):
    assert MIXED.decode(ids) == MIXED_LIBRARY.decode(ids)


def test_words_keep_the_blank_before_them_and_digits_stand_alone(bpe):
    assert bpe.pieces(bpe.encode("the value of 123")) == ["the", " value", " of", " ", "1", "2", "3"]


def test_half_a_character_is_shown_as_bytes(bpe):
    ids = bpe.encode("\N{OGHAM LETTER BEITH}")
    assert len(ids) > 1
    shown = "".join(bpe.pieces(ids))
    assert shown == "<0xE1><0x9A><0x81>"


def test_text_that_spells_the_end_token_stays_text(bpe):
    ids = bpe.encode("a<|endoftext|>b")
    assert bpe.end_id not in ids
    assert bpe.decode(ids) == "a<|endoftext|>b"


def test_a_saved_tokenizer_is_the_same_one(bpe, tmp_path):
    bpe.save(tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    assert (again.name, again.fingerprint, again.end_id) == (bpe.name, bpe.fingerprint, bpe.end_id)
    assert again.encode("def f(x):\n    return x") == bpe.encode("def f(x):\n    return x")


def test_a_saved_tokenizer_opens_in_transformers(bpe, tmp_path):
    from transformers import AutoTokenizer

    bpe.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "Die Größe: 3,5 €\n\tint main(void);"
    assert theirs(text, add_special_tokens=False)["input_ids"] == bpe.encode(text)
    assert theirs.eos_token_id == bpe.end_id


def test_a_sentencepiece_folder_is_read_with_its_bytes(tmp_path):
    tokenizer = sentencepiece(tmp_path)
    ids = tokenizer.encode("hi hié")
    assert tokenizer.pieces(ids) == [" hi", " hi", "<0xC3>", "<0xA9>"]
    assert tokenizer.byte_counts[ids].tolist() == [3, 3, 1, 1]
    assert tokenizer.decode(ids) == "hi hié"
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.byte_counts[1].item()) == (1, 2, 0)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    return sentencepiece(folder), LibraryTokenizer.from_file(str(folder / "tokenizer.json"))


@given(text=st.text("hi é€", min_size=1, max_size=20))
def test_a_sentencepiece_folder_decodes_as_the_tokenizers_library_does(text, both):
    tokenizer, library = both
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == library.decode(ids) == text


def test_a_folder_without_a_tokenizer_says_what_to_put_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a tokenizer.json in .*, found none; save the tokenizer"):
        load_tokenizer(tmp_path)


def test_a_folder_without_an_end_token_says_so(bpe, tmp_path):
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expected an eos_token in .*tokenizer_config\.json, found none"):
        load_tokenizer(tmp_path)


def test_an_end_token_outside_the_vocabulary_is_named(bpe, tmp_path):
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<stop>"}')
    with pytest.raises(ValueError, match="expected the token '<stop>' in the vocabulary"):
        load_tokenizer(tmp_path)


def test_a_truncated_file_is_called_damaged(bpe, tmp_path):
    bpe.save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="expected JSON in the tokenizer of mixed_bpe_4096, got a damaged file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="got JSON without a 'model'"):
        load_tokenizer(tmp_path)


def test_a_vocabulary_that_hides_its_bytes_is_refused(tmp_path):
    library = LibraryTokenizer(models.WordPiece(vocab={"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    library.decoder = decoders.WordPiece()
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "[UNK]"}')
    with pytest.raises(
        ValueError, match=r"expected a byte-level or a SentencePiece tokenizer in .*, got decoder WordPiece"
    ):
        load_tokenizer(tmp_path)
