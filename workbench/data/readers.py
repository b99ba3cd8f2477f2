"""Other people's files as a stream of labelled documents; what cannot be read says where and why."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.data.corpus import Document

__all__ = ["Reader", "reader_of"]

Reader = Callable[[Path], Iterator[Document]]

_BLOCK_BYTES = 1 << 20
# A plain text file has no documents; it is cut at blank lines into pieces of about this length.
_PIECE_CHARACTERS = 4000
_FORMATS = "a folder of .txt files, a .txt, .jsonl or .parquet file, or a folder saved by Hugging Face datasets"


def reader_of(path: Path) -> tuple[Reader, list[Path]]:
    """What reads this path, and the files that it reads.

    Raises:
        ValueError: the format is not known, or the folder holds no text.
    """
    if path.is_file():
        readers: dict[str, Reader] = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
        if path.suffix.lower() not in readers:
            raise ValueError(f"expected {_FORMATS}; got the file {path} of type {path.suffix or 'without suffix'}")
        return readers[path.suffix.lower()], [path]
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(child.name for child in path.iterdir() if child.is_dir()))
        raise ValueError(f"expected one dataset, got {path} with several splits ({splits}); open one of those folders")
    if (path / "dataset_info.json").is_file():
        return _read_arrow, sorted(path.glob("*.arrow"))
    files = _txt_files(path)
    if not files:
        found = Counter(child.suffix or "without suffix" for child in path.rglob("*") if child.is_file())
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.most_common(5)) or "nothing"
        raise ValueError(f"expected {_FORMATS}; the folder {path} holds no .txt file, but {kinds}")
    return _read_txt_folder, files


def _txt_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.txt") if path.is_file())


def _read_txt_folder(folder: Path) -> Iterator[Document]:
    for path in _txt_files(folder):
        first = path.relative_to(folder).parts[0]
        domain = folder.resolve().name if first == path.name and path.parent == folder else first
        for text in _pieces(path):
            yield Document(domain, text)


def _read_txt(path: Path) -> Iterator[Document]:
    return (Document(path.stem, text) for text in _pieces(path))


def _pieces(path: Path) -> Iterator[str]:
    held = ""
    for block in _decoded(path):
        held += block
        while len(held) > 2 * _PIECE_CHARACTERS:
            cut = _cut(held)
            yield held[:cut]
            held = held[cut:]
    if held.strip():
        yield held


def _cut(text: str) -> int:
    """Where to end a piece: after a blank line, else a line, else a word, else in the middle."""
    for mark in ("\n\n", "\n", " "):
        place = text.find(mark, _PIECE_CHARACTERS, 2 * _PIECE_CHARACTERS)
        if place >= 0:
            return place + len(mark)
    return 2 * _PIECE_CHARACTERS


def _decoded(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        rest, start = b"", 0
        while block := file.read(_BLOCK_BYTES):
            data = rest + block
            # A character may straddle two blocks: hold back the last, unfinished one.
            whole = len(data) - _unfinished(data)
            yield _text(data[:whole], path, start).removeprefix("\ufeff" if start == 0 else "")
            rest, start = data[whole:], start + whole
        yield _text(rest, path, start)


def _unfinished(data: bytes) -> int:
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0


def _text(data: bytes, path: Path, start: int) -> str:
    zero = data.find(b"\0")
    if zero >= 0:
        raise ValueError(
            f"expected UTF-8 text in {path}, got a NUL byte at byte {start + zero}: the file is binary or UTF-16; "
            "convert it to UTF-8 or leave it out"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8 text in {path}, got byte 0x{data[error.start]:02X} at byte {start + error.start} "
            f"({error.reason}); convert the file, for instance: iconv -f latin1 -t utf-8"
        ) from error


def _read_jsonl(path: Path) -> Iterator[Document]:
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _text(line, path, start).removeprefix("\ufeff" if number == 1 else "")
            start += len(line)
            if text.strip():
                yield _jsonl_document(text, f"{path} line {number}", path.stem)


def _jsonl_document(line: str, where: str, default_domain: str) -> Document:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"expected one JSON object per line in {where}, got: {error}; repair or drop the line"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(f'expected an object like {{"text": ...}} in {where}, got {type(record).__name__}')
    _check_columns(list(record), where)
    return _document(record["text"], record.get("domain"), where, default_domain)


def _check_columns(names: list[str], where: str) -> None:
    if "text" not in names:
        raise ValueError(f"expected a column 'text' in {where}, got {', '.join(names) or 'none'}; rename the column")


def _document(text: Any, domain: Any, where: str, default_domain: str) -> Document:
    if not isinstance(text, str):
        raise ValueError(f"expected 'text' to be a string in {where}, got {type(text).__name__}; drop the record")
    return Document(default_domain if domain is None else str(domain), text)


def _read_parquet(path: Path) -> Iterator[Document]:
    _, parquet = _pyarrow()
    with path.open("rb") as file:
        table = _opened(parquet.ParquetFile, file, "a Parquet file", path)
        names = table.schema_arrow.names
        _check_columns(names, str(path))
        columns = [name for name in ("text", "domain") if name in names]
        yield from _batch_documents(table.iter_batches(batch_size=256, columns=columns), path)


def _read_arrow(folder: Path) -> Iterator[Document]:
    ipc, _ = _pyarrow()
    for path in sorted(folder.glob("*.arrow")):
        with path.open("rb") as file, _opened(ipc.open_stream, file, "an Arrow stream", path) as reader:
            _check_columns(reader.schema.names, str(path))
            for document in _batch_documents(reader, path):
                # `datasets` calls every file data-00000-of-...; the folder has the name people gave.
                yield document._replace(domain=folder.name) if document.domain == path.stem else document


def _batch_documents(batches: Any, path: Path) -> Iterator[Document]:
    row = 0
    for batch in batches:
        texts = batch.column("text").to_pylist()
        has_domain = "domain" in batch.schema.names
        domains = batch.column("domain").to_pylist() if has_domain else [None] * len(texts)
        for text, domain in zip(texts, domains, strict=True):
            yield _document(text, domain, f"{path} row {row}", path.stem)
            row += 1


def _opened(opener: Callable[[Any], Any], file: Any, kind: str, path: Path) -> Any:
    try:
        return opener(file)
    except ValueError as error:
        raise ValueError(f"expected {kind} in {path}, got something else or a damaged one: {error}") from error


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        from pyarrow import ipc, parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "expected pyarrow for .parquet files and datasets folders, it is not installed; "
            "pip install moe-workbench[data], or convert the data to .jsonl"
        ) from error
    return ipc, parquet
