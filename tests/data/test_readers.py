import sys
from collections import defaultdict

import pytest

from workbench.data.readers import reader_of

pa = pytest.importorskip("pyarrow", reason="pip install moe-workbench[data]")
import pyarrow.parquet  # noqa: E402


def documents(path):
    reader, _ = reader_of(path)
    return list(reader(path))


def by_domain(path):
    texts = defaultdict(list)
    for domain, text in documents(path):
        texts[domain].append(text)
    return dict(texts)


def test_sub_folders_are_domains_and_nothing_else_is_read(write, tmp_path):
    write("c/poems/1.txt", "roses")
    write("c/poems/deep/2.txt", "violets")
    write("c/laws/3.txt", "thou shalt")
    write("c/laws/4.pdf", b"%PDF\0")
    assert by_domain(tmp_path / "c") == {"poems": ["roses", "violets"], "laws": ["thou shalt"]}


def test_files_of_a_flat_folder_are_one_domain_called_as_the_folder(write, tmp_path):
    write("flat/b.txt", "two")
    write("flat/a.txt", "one")
    assert by_domain(tmp_path / "flat") == {"flat": ["one", "two"]}


def test_a_long_file_is_cut_at_blank_lines_and_nothing_is_lost(write):
    text = "".join(f"paragraph {n} " + "word " * 100 + "\n\n" for n in range(100))
    path = write("book.txt", text)
    pieces = [piece for _, piece in documents(path)]
    assert "".join(pieces) == text
    assert all(piece.endswith("\n\n") for piece in pieces)
    assert all(4000 <= len(piece) <= 8000 for piece in pieces[:-1])


@pytest.mark.parametrize("text", ["x" * 30_000, "word " * 6000, "line\n" * 6000])
def test_text_without_blank_lines_is_cut_all_the_same(write, text):
    pieces = [piece for _, piece in documents(write("book.txt", text))]
    assert "".join(pieces) == text
    assert len(pieces) > 3


@pytest.mark.parametrize("character", ["é", "€", "\U0001f600"])
@pytest.mark.parametrize("shift", range(4))
def test_a_character_across_two_blocks_is_read_whole(write, monkeypatch, character, shift):
    monkeypatch.setattr("workbench.data.readers._BLOCK_BYTES", 16)
    text = "x" * shift + character * 20
    assert "".join(piece for _, piece in documents(write("b.txt", text))) == text


def test_a_byte_order_mark_is_not_text(write):
    assert documents(write("b.txt", b"\xef\xbb\xbfhello")) == [("b", "hello")]
    assert documents(write("b.jsonl", b'\xef\xbb\xbf{"text": "hello"}')) == [("b", "hello")]


@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x28", b"\xc3", b"\xed\xa0\x80"])
@pytest.mark.parametrize("place", [0, 5, 15, 16, 17, 40])
def test_a_byte_that_is_not_utf_8_is_located_exactly(write, monkeypatch, bad, place):
    monkeypatch.setattr("workbench.data.readers._BLOCK_BYTES", 16)
    path = write("b.txt", b"x" * place + bad)
    with pytest.raises(ValueError, match=rf"UTF-8 text in .*b.txt, got byte 0x{bad[0]:02X} at byte {place} \("):
        documents(path)


def test_a_binary_file_is_recognised_by_its_nul_byte(write, monkeypatch):
    monkeypatch.setattr("workbench.data.readers._BLOCK_BYTES", 16)
    path = write("b.txt", b"x" * 37 + b"\0")
    with pytest.raises(ValueError, match="got a NUL byte at byte 37: the file is binary or UTF-16; convert it"):
        documents(path)


def test_json_lines_with_and_without_domains(write):
    path = write("d.jsonl", '{"text": "a", "domain": "one"}\n\n{"text": "b"}\n{"text": "c", "domain": 3}')
    assert documents(path) == [("one", "a"), ("d", "b"), ("3", "c")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": ', r"one JSON object per line in .*d.jsonl line 2, got: Expecting value"),
        ("[1]", r"an object like \{\"text\": ...\} in .*line 1, got list"),
        ('{"body": "a", "id": 1}', r"a column 'text' in .*line 1, got body, id; rename the column"),
        ('{"text": null}', r"'text' to be a string in .*line 1, got NoneType"),
        (b'{"text": "a"}\n{"text": "\xff"}', r"got byte 0xFF at byte 24"),
        (b'{"text": "a"}\n\0', r"got a NUL byte at byte 14"),
    ],
)
def test_bad_json_lines_say_where_and_what(write, content, message):
    with pytest.raises(ValueError, match=message):
        documents(write("d.jsonl", content))


def test_parquet_with_and_without_domains(tmp_path):
    table = {"text": ["a", "b"], "domain": ["one", None], "n": [1, 2]}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "d.parquet")
    assert documents(tmp_path / "d.parquet") == [("one", "a"), ("d", "b")]


def test_parquet_without_text_says_which_columns_there_are(tmp_path):
    pyarrow.parquet.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"a column 'text' in .*d.parquet, got body, n; rename the column"):
        documents(tmp_path / "d.parquet")


def test_a_file_that_is_no_parquet_is_refused(write):
    with pytest.raises(ValueError, match=r"expected a Parquet file in .*d.parquet"):
        documents(write("d.parquet", b"not at all"))


def test_without_pyarrow_the_error_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install moe-workbench\[data\], or convert the data to .jsonl"):
        documents(write("d.parquet", b""))


def test_a_saved_datasets_folder_is_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install moe-workbench[test]")
    rows = {"text": ["a", "b", "c"], "domain": ["one", "two", "one"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved", num_shards=2)
    assert documents(tmp_path / "saved") == [("one", "a"), ("two", "b"), ("one", "c")]
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "plain")
    assert documents(tmp_path / "plain") == [("plain", "a")]


def test_a_datasets_folder_with_splits_says_which_folder_to_open(tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install moe-workbench[test]")
    part = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"with several splits \(test, train\); open one of those folders"):
        reader_of(tmp_path / "saved")


def test_an_unknown_kind_of_file_is_refused_with_the_kinds_that_work(write):
    with pytest.raises(ValueError, match=r"a \.txt, \.jsonl or \.parquet file.*got the file .*d\.docx of type \.docx"):
        reader_of(write("d.docx", "x"))


def test_a_folder_without_text_says_what_is_in_it(write, tmp_path):
    write("f/a.md", "x")
    write("f/b.md", "x")
    write("f/c.py", "x")
    with pytest.raises(ValueError, match=r"holds no \.txt file, but 2 \.md, 1 \.py"):
        reader_of(tmp_path / "f")
