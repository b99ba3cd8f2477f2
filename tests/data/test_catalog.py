import pytest

from workbench.data import (
    CORPORA,
    ByteTokenizer,
    Corpus,
    TrainedTokenizer,
    UserCorpus,
    corpus_names,
    load_tokenizer,
    open_corpus,
    tokenizer_names,
)


def test_the_corpora_that_ship_are_listed():
    assert set(corpus_names()) >= {"class_arithmetic", "mixed", "token_remap"}
    assert corpus_names() == CORPORA.names()


@pytest.mark.parametrize("name", corpus_names())
def test_every_registered_corpus_opens_and_names_a_tokenizer_that_exists(name):
    corpus = open_corpus(name)
    assert isinstance(corpus, Corpus)
    assert corpus.name == name
    assert corpus.tokenizer in tokenizer_names()
    assert corpus.domains
    assert len(corpus.fingerprint) == 64
    assert set(corpus.card.bytes) == set(corpus.domains)


@pytest.mark.parametrize("name", corpus_names())
def test_every_registered_corpus_has_a_short_probe_and_all_its_splits(name):
    corpus = open_corpus(name)
    assert 40 <= len(corpus.probe_text) <= 3000
    for split in ("train", "validation", "probe"):
        assert {next(corpus.documents(split, domain), "") != "" for domain in corpus.domains} == {True}


def test_a_name_may_carry_arguments():
    assert len(open_corpus("token_remap:num_domains=8,documents=5").domains) == 8


def test_an_unknown_argument_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"token_remap has no argument 'domains'.*It takes: num_domains, documents"):
        open_corpus("token_remap:domains=8")


def test_a_wrong_number_of_domains_is_refused():
    with pytest.raises(ValueError, match="num_domains must be between 1 and 64, got 65"):
        open_corpus("token_remap:num_domains=65")


def test_an_unknown_corpus_is_answered_with_the_close_name_and_that_a_path_works():
    with pytest.raises(LookupError) as caught:
        open_corpus("mixd")
    message = str(caught.value)
    assert "no corpus 'mixd' (did you mean 'mixed'?)" in message
    assert "class_arithmetic, mixed, token_remap" in message
    assert "a path also works (a folder of .txt, a .jsonl or a .parquet file)" in message


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(LookupError, match=r"lost\.jsonl' is not one"):
        open_corpus(tmp_path / "lost.jsonl")


def test_a_path_with_a_colon_is_a_path(write, tmp_path):
    path = write("a:b=c.txt", "word " * 5000)
    assert open_corpus(str(path), cache_folder=tmp_path).domains == ("a:b=c",)


def test_a_path_opens_a_persons_own_text(write, tmp_path):
    path = write("mine.txt", "word " * 5000)
    assert isinstance(open_corpus(str(path), cache_folder=tmp_path), UserCorpus)
    assert isinstance(open_corpus(path, cache_folder=tmp_path), UserCorpus)


def test_tokenizers_by_name():
    assert tokenizer_names() == ("byte", "mixed_bpe_4096")
    assert isinstance(load_tokenizer("byte"), ByteTokenizer)
    assert isinstance(load_tokenizer("mixed_bpe_4096"), TrainedTokenizer)


def test_an_unknown_tokenizer_is_answered_with_the_close_name():
    with pytest.raises(LookupError, match=r"no tokenizer 'bytes' \(did you mean 'byte'\?\).*a folder with a tokenizer"):
        load_tokenizer("bytes")
