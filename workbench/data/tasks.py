"""Corpora made by a rule, for which the right expert of every token is known."""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.records import Batch
from workbench.data.corpus import SPLITS, Corpus, CorpusCard, Document, Split

__all__ = ["Task"]


class Task(Corpus):
    """A synthetic corpus with a known right routing.

    A task is text like any other: each symbol is one ASCII character, hence one token of the `byte`
    tokenizer. So everything that works on a corpus works on a task.

    Args:
        num_right_experts: how many different right experts there are.
        entropy_bits: what the best possible model pays for a symbol, once the rule is learned
            and the context has told what it can [bit].
        documents: training documents per domain; validation has a sixteenth of them.
        document_bytes: symbols per document [B].
    """

    def __init__(
        self,
        *,
        name: str,
        title: str,
        domains: tuple[str, ...],
        fingerprint: str,
        num_right_experts: int,
        entropy_bits: float,
        documents: int,
        document_bytes: int = 511,
    ):
        at_least("documents", documents, 1)
        train, validation = documents, max(1, documents // 16)
        size = (train + validation) * document_bytes
        card = CorpusCard(
            title=title, licence="generated, no rights", bytes=dict.fromkeys(domains, size), is_synthetic=True
        )
        super().__init__(name=name, domains=domains, card=card, fingerprint=fingerprint, tokenizer="byte")
        self.num_right_experts = num_right_experts
        self.entropy_bits = entropy_bits
        self._counts = {"train": train, "validation": validation, "probe": 1}
        self._document_bytes = document_bytes

    @abstractmethod
    def right_expert(self, batch: Batch) -> Int[Tensor, "B S"]:
        """The right expert of each token, -1 where there is none (padding, end of a document)."""

    @abstractmethod
    def symbols(
        self, domain_index: int, generator: np.random.Generator, count: int, length: int
    ) -> Int[np.ndarray, "B S"]:
        """`count` documents of `length` ASCII codes each, drawn from the generator alone."""

    def read(self, split: Split, domain: str | None = None) -> Iterator[Document]:
        """The documents of one split, generated on the way; splits draw from different streams."""
        length = 64 if split == "probe" else self._document_bytes
        for index, name in enumerate(self.domains):
            if domain in (None, name):
                generator = np.random.default_rng([SPLITS.index(split), index])
                yield from self._generate(index, generator, self._counts[split], length)

    def _generate(self, index: int, generator: np.random.Generator, count: int, length: int) -> Iterator[Document]:
        for start in range(0, count, 256):
            block = self.symbols(index, generator, min(256, count - start), length).astype(np.uint8)
            for row in block:
                yield Document(self.domains[index], row.tobytes().decode("ascii"))
