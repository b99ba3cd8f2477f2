"""Small corpora whose every document is written in the test."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from workbench.data import ByteTokenizer, Corpus, CorpusCard, Document, load_tokenizer


class ListedCorpus(Corpus):
    """Documents given as lists, per domain; the same for train and validation unless told."""

    def __init__(self, train: Mapping[str, Sequence[str]], validation: Mapping[str, Sequence[str]] | None = None):
        self.splits = {"train": train, "validation": validation or train, "probe": {d: t[:1] for d, t in train.items()}}
        self.reads = 0
        sizes = {domain: sum(len(text.encode()) for text in texts) for domain, texts in train.items()}
        card = CorpusCard(title="listed in a test", licence="none", bytes=sizes)
        super().__init__(
            name="listed", domains=tuple(train), card=card, fingerprint=str(hash(str(self.splits))), tokenizer="byte"
        )

    def read(self, split, domain=None) -> Iterator[Document]:
        self.reads += 1
        for name, texts in self.splits[split].items():
            if domain in (None, name):
                yield from (Document(name, text) for text in texts)


@pytest.fixture
def listed() -> Callable[..., ListedCorpus]:
    return ListedCorpus


@pytest.fixture
def byte() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def bpe():
    return load_tokenizer("mixed_bpe_4096")


@pytest.fixture
def write(tmp_path) -> Callable[[str, str | bytes], Path]:
    """Writes a file below the test's folder and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file
