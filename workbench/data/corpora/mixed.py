"""The bundled corpus: prose in several languages, code, mathematics and structured data."""

import hashlib
import json
import lzma
from collections.abc import Iterator
from typing import Any, final

from workbench.data.bundle import bundled
from workbench.data.corpus import Corpus, CorpusCard, Document, Split

__all__ = ["Mixed"]


@final
class Mixed(Corpus):
    """Text of a Debian system and of Python packages, and generated mathematics, in domains that people can tell apart.

    Source: `datasets/corpora/mixed/README.md`, with the origin and licence of every file.
    """

    def __init__(self) -> None:
        self._folder = bundled("corpora/mixed")
        manifest: dict[str, Any] = json.loads((self._folder / "manifest.json").read_text(encoding="utf-8"))
        self._files: dict[str, str] = manifest["files"]
        super().__init__(
            name="mixed",
            domains=tuple(manifest["domains"]),
            card=CorpusCard(
                title=manifest["title"],
                licence=manifest["licence"],
                bytes={name: sum(split["bytes"] for split in d.values()) for name, d in manifest["domains"].items()},
            ),
            # The manifest lists the checksum of every file; a test compares them with the files.
            fingerprint=hashlib.sha256(json.dumps(self._files, sort_keys=True).encode()).hexdigest(),
            tokenizer="mixed_bpe_4096",
        )

    def read(self, split: Split, domain: str | None = None) -> Iterator[Document]:
        """The documents of one split, domain by domain.

        Raises:
            ValueError: a file is damaged.
        """
        for name in self.domains:
            if domain in (None, name):
                for text in self._texts(f"{name}.{split}.jsonl.xz"):
                    yield Document(name, text)

    def _texts(self, file_name: str) -> Iterator[str]:
        path = self._folder / file_name
        try:
            with lzma.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)["text"]
        except (lzma.LZMAError, EOFError, json.JSONDecodeError) as error:
            raise ValueError(
                f"expected {path} with sha256 {self._files[file_name][:12]}..., got a damaged file ({error}); "
                "restore it: git checkout -- datasets, or reinstall"
            ) from error
