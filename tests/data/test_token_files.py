import errno
import inspect
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from workbench.data import Corpus, CorpusCard, Document
from workbench.data import token_files as module
from workbench.data.token_files import cache_home, token_files
from workbench.data.tokenizer import ByteTokenizer


def files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix == ".bin"
    )


def test_tokens_are_those_of_the_documents_each_with_its_end(listed, byte, tmp_path):
    corpus = listed({"a": ["xy", "z"], "b": ["é"]})
    first, second = token_files(corpus, byte, "train", cache_folder=tmp_path)
    assert first.tolist() == [120, 121, 256, 122, 256]
    assert second.tolist() == [0xC3, 0xA9, 256]
    assert first.dtype == np.uint16
    assert isinstance(first, np.memmap)


def test_the_second_time_nothing_is_read_again(listed, byte, tmp_path):
    corpus = listed({"a": ["xy"]})
    token_files(corpus, byte, "train", cache_folder=tmp_path)
    assert token_files(corpus, byte, "train", cache_folder=tmp_path)[0].tolist() == [120, 121, 256]
    assert corpus.reads == 1


def test_another_corpus_tokenizer_or_split_has_files_of_its_own(listed, byte, bpe, tmp_path):
    old, new = listed({"a": ["xy"]}), listed({"a": ["xyz"]})
    assert len(token_files(old, byte, "train", cache_folder=tmp_path)[0]) == 3
    assert len(token_files(new, byte, "train", cache_folder=tmp_path)[0]) == 4
    token_files(new, byte, "validation", cache_folder=tmp_path)
    token_files(new, bpe, "train", cache_folder=tmp_path)
    assert len(files_below(tmp_path)) == 4


def test_a_domain_without_text_is_an_empty_file(listed, byte, tmp_path):
    assert len(token_files(listed({"a": ["x"], "b": []}), byte, "train", cache_folder=tmp_path)[1]) == 0


def test_domain_names_cannot_leave_the_folder(listed, byte, tmp_path):
    token_files(listed({"../../up": ["x"], "a b/c": ["y"]}), byte, "train", cache_folder=tmp_path / "cache")
    assert [Path(name).name for name in files_below(tmp_path)] == ["000-.._.._up.bin", "001-a_b_c.bin"]
    assert not files_below(tmp_path.parent / "up")


def test_a_document_longer_than_a_chunk_comes_through_whole(listed, byte, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 10)
    text = "short\nand a word that is much longer than ten\n\nend"
    (tokens,) = token_files(listed({"a": [text, "next"]}), byte, "train", cache_folder=tmp_path)
    assert bytes(t if t < 256 else 0 for t in tokens.tolist()) == text.encode() + b"\0next\0"


def test_an_error_while_reading_leaves_nothing_behind(listed, byte, tmp_path):
    def broken():
        yield "fine" * 1000
        raise ValueError("bad byte")

    corpus = listed({"a": ["x"]})
    corpus.splits["train"] = {"a": broken()}
    with pytest.raises(ValueError, match="bad byte"):
        token_files(corpus, byte, "train", cache_folder=tmp_path)
    assert files_below(tmp_path) == []


def test_a_full_disk_is_a_clear_message_and_leaves_nothing_behind(listed, byte, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_append", full)
    with pytest.raises(
        OSError, match=r"no space left in .* for the token files of 'listed' \(1 B of text\); free some"
    ):
        token_files(listed({"a": ["x"]}), byte, "train", cache_folder=tmp_path)
    assert files_below(tmp_path) == []


class Slow(Corpus):
    """Numbered documents, with a pause before each."""

    def __init__(self, documents: int, pause_seconds: float = 0.0):
        card = CorpusCard(title="slow", licence="none", bytes={"a": 1})
        super().__init__(name="slow", domains=("a",), card=card, fingerprint="f" * 64, tokenizer="byte")
        self.documents_and_pause = documents, pause_seconds
        self.reads = 0

    def read(self, split, domain=None):
        self.reads += 1
        for number in range(self.documents_and_pause[0]):
            time.sleep(self.documents_and_pause[1])
            yield Document("a", f"document {number}")


EXPECTED = [token for number in range(200) for token in [*f"document {number}".encode(), 256]]

# The same corpus in another process, with a document every 0.2 ms: long enough to be killed in the middle.
VICTIM = f"""
import sys, time
from pathlib import Path
from workbench.data import ByteTokenizer, Corpus, CorpusCard, Document
from workbench.data import Corpus, CorpusCard, Document
from workbench.data import token_files as module

{inspect.getsource(Slow)}
module._CHUNK = 200
module.token_files(Slow(1_000_000, 0.0002), ByteTokenizer(), "train", cache_folder=Path(sys.argv[1]))
"""


def test_a_killed_run_leaves_no_half_file_and_the_next_one_is_right(byte, tmp_path, root):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])}
    command = [sys.executable, "-c", VICTIM, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as victim:
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size for path in tmp_path.rglob("unfinished-*/*.bin")):
            assert victim.poll() is None, victim.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
    assert list(tmp_path.rglob("unfinished-*/*.bin"))
    assert list(tmp_path.rglob("train/*.bin")) == []
    (tokens,) = token_files(Slow(200), byte, "train", cache_folder=tmp_path)
    assert tokens.tolist() == EXPECTED
    assert list(tmp_path.rglob("unfinished-*")) == []


def test_of_several_writers_at_the_same_time_one_writes_and_all_get_the_same(byte, tmp_path):
    # A lock belongs to an open file, so threads exclude each other as processes do.
    corpora = [Slow(200, 0.002) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda corpus: token_files(corpus, byte, "train", cache_folder=tmp_path)[0], corpora))
    assert [tokens.tolist() for tokens in results] == [EXPECTED] * 4
    assert sum(corpus.reads for corpus in corpora) == 1


def test_the_cache_is_in_the_users_cache_folder_unless_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home(tmp_path / "mine") == tmp_path / "mine"
    if sys.platform == "linux":
        assert cache_home(None) == tmp_path / "moe-workbench"


def test_ids_above_65535_are_kept_in_four_bytes(listed, tmp_path, monkeypatch):
    tokenizer = ByteTokenizer()
    monkeypatch.setattr(tokenizer, "vocab_size", 70_000)
    monkeypatch.setattr(tokenizer, "end_id", 69_999)
    (tokens,) = token_files(listed({"a": ["x"]}), tokenizer, "train", cache_folder=tmp_path)
    assert tokens.dtype == np.uint32
    assert tokens.tolist() == [120, 69_999]
