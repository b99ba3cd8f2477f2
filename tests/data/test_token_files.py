import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

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


# A corpus of one million documents, one every 0.2 ms: long enough to be killed in the middle.
SLOW = """
    import sys, time
    from pathlib import Path
    from workbench.data import ByteTokenizer, Corpus, CorpusCard, Document
    from workbench.data import token_files as module

    class Slow(Corpus):
        def read(self, split, domain=None):
            for number in range(int(sys.argv[2])):
                time.sleep(float(sys.argv[3]))
                yield Document("a", f"document {number}")

    module._CHUNK = 200
    card = CorpusCard(title="", licence="", bytes={"a": 1})
    corpus = Slow(name="slow", domains=("a",), card=card, fingerprint="f" * 64, tokenizer="byte")
    tokens = module.token_files(corpus, ByteTokenizer(), "train", cache_folder=Path(sys.argv[1]))[0]
    sys.stdout.write(str(int(tokens.astype("int64").sum())))
"""


def start(folder: Path, documents: int, pause_seconds: float) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])}
    command = [sys.executable, "-c", textwrap.dedent(SLOW), str(folder), str(documents), str(pause_seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def expected_sum(documents: int) -> int:
    return sum(sum(f"document {n}".encode()) + 256 for n in range(documents))


def test_a_killed_run_leaves_no_half_file_and_the_next_one_is_right(tmp_path):
    victim = start(tmp_path, 1_000_000, 0.0002)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.rglob("unfinished-*/*.bin")):
        assert victim.poll() is None, victim.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert list(tmp_path.rglob("train/*.bin")) == []
    output, errors = start(tmp_path, 500, 0).communicate(timeout=60)
    assert output == str(expected_sum(500)), errors
    assert list(tmp_path.rglob("unfinished-*")) == []


def test_writers_at_the_same_time_end_with_one_whole_file(tmp_path):
    writers = [start(tmp_path, 300, 0.002) for _ in range(2)]
    results = [writer.communicate(timeout=60) for writer in writers]
    assert [output for output, _ in results] == [str(expected_sum(300))] * 2, results
    assert len(list(tmp_path.rglob("*.bin"))) == 1


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
