"""What a corpus is: labelled documents, split once and for good."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from workbench.core.check import did_you_mean
from workbench.core.html import table
from workbench.core.units import human_bytes

__all__ = ["SPLITS", "Corpus", "CorpusCard", "Document", "Split"]

Split = Literal["train", "validation", "probe"]
SPLITS: tuple[Split, ...] = get_args(Split)


class Document(NamedTuple):
    """One text with its label."""

    domain: str
    text: str


@dataclass(frozen=True, kw_only=True)
class CorpusCard:
    """What a person should know before using a corpus.

    Args:
        title: one line.
        licence: how the text may be used.
        bytes: UTF-8 text of each domain over all splits [B].
        is_synthetic: True when nobody wrote the text.
    """

    title: str
    licence: str
    bytes: Mapping[str, int]
    is_synthetic: bool = False


class Corpus(ABC):
    """Documents with domain labels, in three splits that share no document.

    `train` is learned from, `validation` is scored, `probe` is a short fixed text that people look at.

    Args:
        name: public name, or the name of the file or folder.
        domains: names of the domains; a token's label is an index into them.
        card: what a person should know.
        fingerprint: hash of the content; names token caches and is kept in checkpoints.
        tokenizer: name of the tokenizer that suits the text.
    """

    def __init__(self, *, name: str, domains: tuple[str, ...], card: CorpusCard, fingerprint: str, tokenizer: str):
        self.name = name
        self.domains = domains
        self.card = card
        self.fingerprint = fingerprint
        self.tokenizer = tokenizer

    @abstractmethod
    def read(self, split: Split, domain: str | None = None) -> Iterator[Document]:
        """The documents of one split, of one domain or of all, always in the same order.

        Streams: one document is held at a time. The probe has one short passage per domain.
        """

    def documents(self, split: Split, domain: str) -> Iterator[str]:
        """The texts of one domain.

        Raises:
            LookupError: no such domain.
        """
        self.domain_index(domain)
        return (document.text for document in self.read(split, domain))

    def domain_index(self, domain: str) -> int:
        """Place of a domain in `domains`.

        Raises:
            LookupError: no such domain; the message lists those that exist.
        """
        if domain not in self.domains:
            raise LookupError(
                f"corpus {self.name!r} has no domain {domain!r}{did_you_mean(domain, self.domains)}. "
                f"It has: {', '.join(self.domains)}."
            )
        return self.domains.index(domain)

    @property
    def probe_text(self) -> str:
        """The probe: one passage of each domain, in neither train nor validation."""
        return "".join(document.text for document in self.read("probe"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, domains={self.domains})"

    def _repr_html_(self) -> str:
        total = sum(self.card.bytes.values())
        rows = [[name, human_bytes(self.card.bytes[name])] for name in self.domains[:12]]
        if len(self.domains) > 12:
            rows.append([f"{len(self.domains) - 12} more", ""])
        kind = "synthetic" if self.card.is_synthetic else "text"
        note = f"{self.card.title} · {self.card.licence} · fingerprint {self.fingerprint[:12]}"
        return table(f"Corpus {self.name}: {human_bytes(total)} of {kind}", ["domain", "text"], rows, note=note)
