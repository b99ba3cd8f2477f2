"""A person's own text as a corpus: read once from end to end, then streamed."""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from tqdm import tqdm

from workbench.data.corpus import Corpus, CorpusCard, Document, Split
from workbench.data.readers import reader_of
from workbench.data.token_files import cache_home

__all__ = ["UserCorpus"]

_VALIDATION_EVERY = 25
_PROBE_CHARACTERS = 200
# Each domain is a mapped file; a label with thousands of values is not a domain.
_MOST_DOMAINS = 256
# Part of the name under which a reading is remembered; another way to cut files needs another number.
_READING = 1


@final
class UserCorpus(Corpus):
    """A folder of .txt, a .txt, .jsonl or .parquet file, or a folder saved by Hugging Face `datasets`.

    Of every domain the third document is the probe, and every 25th, from the second on, is held out.
    Opening reads the data once, so that a bad byte at the end is found now and not after an hour of training;
    what was found is remembered until a file changes.

    Args:
        path: what to read.
        cache_folder: where the result of that reading is kept; None is the user's cache folder.

    Raises:
        ValueError: the text cannot be used; the message says where and why.
    """

    def __init__(self, path: Path, *, cache_folder: Path | None = None):
        self._path = path
        self._reader, self._files = reader_of(path)
        scan = self._remembered_scan(cache_home(cache_folder) / "scans")
        super().__init__(
            name=path.resolve().name if path.is_dir() else path.stem,
            domains=tuple(sorted(scan["bytes"])),
            card=CorpusCard(title=f"your own text, {path}", licence="yours to know", bytes=scan["bytes"]),
            fingerprint=scan["fingerprint"],
            tokenizer="mixed_bpe_4096",
        )

    def read(self, split: Split, domain: str | None = None) -> Iterator[Document]:
        """The documents of one split, in the order of the files."""
        place: Counter[str] = Counter()
        for document in self._texts():
            if split == _split_of(place[document.domain]) and domain in (None, document.domain):
                yield _probe_passage(document) if split == "probe" else document
            place[document.domain] += 1

    def _texts(self) -> Iterator[Document]:
        return (document for document in self._reader(self._path) if document.text.strip())

    def _remembered_scan(self, folder: Path) -> dict[str, Any]:
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files]
        note = folder / f"{hashlib.sha256(json.dumps([_READING, stats]).encode()).hexdigest()[:32]}.json"
        if note.is_file():
            remembered: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
            return remembered
        scan = self._scan(sum(size for _, size, _ in stats))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            json.dump(scan, file)
        Path(file.name).replace(note)
        return scan

    def _scan(self, total_bytes: int) -> dict[str, Any]:
        count: Counter[str] = Counter()
        text_bytes: Counter[str] = Counter()
        content = hashlib.sha256()
        with tqdm(total=total_bytes, desc=f"read {self._path.name}", unit="B", unit_scale=True, delay=1.0) as bar:
            for domain, text in self._texts():
                data = text.encode()
                count[domain] += 1
                text_bytes[domain] += len(data)
                # Lengths keep the borders between documents part of what is hashed.
                content.update(f"{domain}\0{len(data)}\0".encode() + data)
                bar.update(len(data))
        self._check(count)
        return {"fingerprint": content.hexdigest(), "bytes": dict(text_bytes)}

    def _check(self, count: Counter[str]) -> None:
        if not count:
            raise ValueError(f"expected text in {self._path}, got none: it is empty or holds only white space")
        if len(count) > _MOST_DOMAINS:
            raise ValueError(
                f"expected at most {_MOST_DOMAINS} domains in {self._path}, got {len(count)}, for instance "
                f"{', '.join(map(repr, sorted(count)[:3]))}; put a coarser label into 'domain'"
            )
        for domain, documents in count.items():
            if documents < 3:
                raise ValueError(
                    f"expected at least 3 documents in domain {domain!r} of {self._path} (one each for train, "
                    f"validation and probe), got {documents}; add text or merge the domain with another"
                )


def _split_of(place: int) -> Split:
    if place == 2:
        return "probe"
    return "validation" if place % _VALIDATION_EVERY == 1 else "train"


def _probe_passage(document: Document) -> Document:
    text = document.text.strip()
    if len(text) > _PROBE_CHARACTERS:
        text = text[:_PROBE_CHARACTERS].rsplit(maxsplit=1)[0]
    return document._replace(text=text + "\n\n")
