import json
import os
import tracemalloc

import numpy as np
import pytest

from workbench.data import Batches, UserCorpus
from workbench.data.token_files import token_files


@pytest.fixture
def jsonl(write):
    """A file of numbered documents, one domain for each pair given."""

    def build(name="mine.jsonl", **counts):
        lines = [
            json.dumps({"text": f"{domain} {n}", "domain": domain}) for domain, k in counts.items() for n in range(k)
        ]
        return write(name, "\n".join(lines))

    return build


def texts(corpus, split, domain):
    return list(corpus.documents(split, domain))


def test_the_split_by_hand(jsonl, tmp_path):
    corpus = UserCorpus(jsonl(a=53), cache_folder=tmp_path)
    assert texts(corpus, "validation", "a") == ["a 1", "a 26", "a 51"]
    assert texts(corpus, "probe", "a") == ["a 2\n\n"]
    assert len(texts(corpus, "train", "a")) == 53 - 3 - 1


def test_three_documents_are_one_of_each_split(jsonl, tmp_path):
    corpus = UserCorpus(jsonl(b=3, a=3), cache_folder=tmp_path)
    assert corpus.domains == ("a", "b")
    assert [texts(corpus, split, "b") for split in ("train", "validation", "probe")] == [["b 0"], ["b 1"], ["b 2\n\n"]]
    assert corpus.probe_text == "b 2\n\na 2\n\n"


def test_a_domain_with_two_documents_is_refused_with_what_to_do(jsonl, tmp_path):
    with pytest.raises(ValueError, match=r"at least 3 documents in domain 'b' of .*, got 2; add text or merge"):
        UserCorpus(jsonl(a=9, b=2), cache_folder=tmp_path)


def test_a_label_with_too_many_values_is_refused_with_examples(jsonl, tmp_path):
    path = jsonl(**{f"id{n:04d}": 3 for n in range(257)})
    with pytest.raises(
        ValueError, match=r"at most 256 domains in .*, got 257, for instance 'id0000', 'id0001', 'id0002'"
    ):
        UserCorpus(path, cache_folder=tmp_path)


def test_a_folder_keeps_its_whole_name_and_a_file_loses_its_ending(write, tmp_path):
    path = write("my.data/a.txt", "word " * 5000)
    assert UserCorpus(path.parent, cache_folder=tmp_path).name == "my.data"
    assert UserCorpus(path, cache_folder=tmp_path).name == "a"


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl"])
def test_an_empty_file_is_refused(write, tmp_path, name, content):
    with pytest.raises(
        ValueError, match=rf"expected text in .*{name}, got none: it is empty or holds only white space"
    ):
        UserCorpus(write(name, content), cache_folder=tmp_path)


def test_a_bad_byte_at_the_very_end_is_found_when_opening(write, tmp_path):
    with pytest.raises(ValueError, match="at byte 3000000"):
        UserCorpus(write("late.txt", b"fine\n\n" * 500_000 + b"\xff"), cache_folder=tmp_path)


def test_the_fingerprint_follows_the_content_and_not_the_name(jsonl, tmp_path):
    first = UserCorpus(jsonl("one.jsonl", a=9), cache_folder=tmp_path)
    same = UserCorpus(jsonl("two.jsonl", a=9), cache_folder=tmp_path)
    other = UserCorpus(jsonl("three.jsonl", a=10), cache_folder=tmp_path)
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_a_file_is_read_once_until_it_changes(jsonl, tmp_path, monkeypatch):
    scans = []
    scan = UserCorpus._scan
    monkeypatch.setattr(UserCorpus, "_scan", lambda self, size: scans.append(size) or scan(self, size))
    path = jsonl(a=9)
    first = UserCorpus(path, cache_folder=tmp_path)
    assert UserCorpus(path, cache_folder=tmp_path).fingerprint == first.fingerprint
    assert len(scans) == 1
    path.write_text(path.read_text().replace("a 1", "b 1"))
    os.utime(path, ns=(1, 1))
    assert UserCorpus(path, cache_folder=tmp_path).fingerprint != first.fingerprint
    assert len(scans) == 2


def test_the_probe_is_cut_at_a_word(write, tmp_path):
    corpus = UserCorpus(write("book.txt", "words and more words " * 3000), cache_folder=tmp_path)
    assert len(corpus.probe_text) <= 202
    assert corpus.probe_text.split()[-1] in {"words", "and", "more"}


def test_a_single_small_text_file_is_enough_to_train_on(write, byte, tmp_path):
    corpus = UserCorpus(write("book.txt", "To be, or not to be, that is the question.\n" * 400), cache_folder=tmp_path)
    batches = Batches(corpus, byte, batch_size=2, sequence_length=64, seed=0, cache_folder=tmp_path)
    assert batches.num_windows > 50
    assert list(batches.evaluation("book", max_windows=4))


@pytest.mark.parametrize("megabytes", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_a_large_file_streams_in_bounded_memory(tmp_path, byte, megabytes):
    line = json.dumps({"text": "The quick brown fox jumps over the lazy dog. " * 220, "domain": "fox"}) + "\n"
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for _ in range(megabytes * 1_000_000 // len(line)):
            file.write(line)
    tracemalloc.start()
    corpus = UserCorpus(path, cache_folder=tmp_path)
    _, scanning = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    (tokens,) = token_files(corpus, byte, "train", cache_folder=tmp_path)
    _, tokenising = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The whole file would take 12 MB as text and 100 MB as lists of ids.
    assert scanning < 2_000_000
    assert tokenising < 12_000_000
    assert len(tokens) > 0.9e6 * megabytes
    assert isinstance(tokens, np.memmap)
