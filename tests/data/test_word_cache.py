import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data import load_tokenizer, open_corpus
from workbench.data import word_cache as module
from workbench.data.word_cache import WordCache

MIXED = load_tokenizer("mixed_bpe_4096")
# Blanks, line ends, letters, marks, digits and symbols in every order that a cut could get wrong.
TRICKY = st.text(" \t\n\r\x0b\x1c\xa0\u2028aBéжß_1½²٣.,(«\u0301\U0001f600", max_size=30)


def anew(texts):
    return MIXED._encode_anew(list(texts))


@given(text=TRICKY)
def test_the_cache_gives_what_the_library_gives(text):
    assert WordCache(anew).encode_batch([text]) == anew([text])


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_the_cache_gives_what_the_library_gives_on_any_text(text):
    assert MIXED.encode_batch([text]) == anew([text])


def test_every_plain_character_is_cut_as_the_library_cuts_it():
    characters = [chr(code) for code in range(0x3000) if module._PLAIN.fullmatch(chr(code))]
    assert len(characters) > 8000
    texts = [f"a{c}b !{c} 1{c}\t{c}" for c in characters]
    assert MIXED.encode_batch(texts) == anew(texts)


def test_held_out_text_of_every_domain_is_encoded_as_the_library_encodes_it():
    corpus = open_corpus("mixed")
    for domain in corpus.domains:
        texts = list(corpus.documents("validation", domain))[:6]
        assert MIXED.encode_batch(texts) == anew(texts)


def test_the_library_is_asked_for_each_word_once():
    asked = []

    def encode(words):
        asked.extend(words)
        return [[len(word)] for word in words]

    cache = WordCache(encode)
    assert cache.encode_batch(["one two one", "two one"]) == [[3, 4, 4], [3, 4]]
    assert cache.encode_batch([" two three"]) == [[4, 6]]
    assert sorted(asked) == [" one", " three", " two", "one", "two"]


def test_a_full_table_starts_anew_and_stays_right(monkeypatch):
    monkeypatch.setattr(module, "_MOST_WORDS", 3)
    cache = WordCache(lambda words: [[len(word)] for word in words])
    for text in ("one two three four", "five six", "one two"):
        assert cache.encode_batch([text]) == [[len(word) for word in module._PIECES.findall(text)]]


def test_threads_may_share_a_cache(monkeypatch):
    monkeypatch.setattr(module, "_MOST_WORDS", 50)
    cache = WordCache(lambda words: [[len(word)] for word in words])
    wrong = []

    def work(seed):
        for number in range(300):
            text = f"{'x' * (number % 37)} {'y' * (seed + number % 11)} {number}"
            if cache.encode_batch([text]) != [[len(word) for word in module._PIECES.findall(text)]]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["mixed_bpe_4096"])
def test_the_bundled_vocabulary_uses_the_cache(name):
    assert load_tokenizer(name)._words is not None
