"""Batches of tokens as a pure function of a seed and an index, so that resuming is exact."""

from collections.abc import Iterator
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.html import facts
from workbench.core.records import Batch
from workbench.core.units import human_count
from workbench.data.corpus import Corpus
from workbench.data.shuffle import permuted
from workbench.data.tasks import Task
from workbench.data.token_files import token_files
from workbench.data.tokenizer import Tokenizer

__all__ = ["Batches"]

_NOT_SCORED = -100


@final
class Batches:
    """Windows of a corpus, shuffled over all domains; every token is a target once per epoch.

    A window lies within one domain, and neighbouring windows share one token, so that the last target
    of one is the first input of the next. Domains appear in proportion to their size.

    Args:
        batch_size: windows per batch.
        sequence_length: tokens per window.
        seed: chooses the order of each epoch.
        cache_folder: where token files are kept; None is the user's cache folder.

    Raises:
        ValueError: a domain is shorter than one window, or a task has another tokenizer than its own.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        sequence_length: int,
        seed: int,
        cache_folder: Path | None = None,
    ):
        at_least("batch_size", batch_size, 1)
        at_least("sequence_length", sequence_length, 1)
        if isinstance(corpus, Task) and tokenizer.name != corpus.tokenizer:
            raise ValueError(
                f"task {corpus.name!r} must be read with tokenizer {corpus.tokenizer!r}, got {tokenizer.name!r}; "
                "its right experts are known per symbol"
            )
        self.corpus, self.tokenizer = corpus, tokenizer
        self.batch_size, self.sequence_length, self.seed = batch_size, sequence_length, seed
        self._train = token_files(corpus, tokenizer, "train", cache_folder=cache_folder)
        self._validation = token_files(corpus, tokenizer, "validation", cache_folder=cache_folder)
        windows = [(len(tokens) - 1) // sequence_length for tokens in self._train]
        self._check_sizes(windows)
        self._last_window = np.cumsum(windows)

    @property
    def num_windows(self) -> int:
        """Windows in one epoch."""
        return int(self._last_window[-1])

    @property
    def tokens_per_batch(self) -> int:
        """Targets in one training batch."""
        return self.batch_size * self.sequence_length

    def epoch_of(self, index: int) -> int:
        """The epoch in which a batch begins, counted from 0."""
        return index * self.batch_size // self.num_windows

    def batch(self, index: int) -> Batch:
        """Training batch number `index`, counted from 0 and never ending; the same for ever."""
        at_least("index", index, 0)
        place = index * self.batch_size + np.arange(self.batch_size)
        epoch, within_epoch = np.divmod(place, self.num_windows)
        window = np.empty_like(place)
        for number in np.unique(epoch):
            here = epoch == number
            window[here] = permuted(within_epoch[here], self.num_windows, self.seed, int(number))
        domain = np.searchsorted(self._last_window, window, side="right")
        first_window = np.concatenate([[0], self._last_window])[domain]
        rows = [
            self._window(self._train[d], (w - first) * self.sequence_length)
            for d, w, first in zip(domain.tolist(), window.tolist(), first_window.tolist(), strict=True)
        ]
        return self._full_batch(np.stack(rows), domain)

    def evaluation(self, domain: str, *, max_windows: int | None = None) -> Iterator[Batch]:
        """Held-out windows of one domain, always the same: all, or `max_windows` spread evenly.

        A domain with less held-out text than one window gives one padded window.

        Raises:
            LookupError: no such domain.
        """
        index = self.corpus.domain_index(domain)
        if max_windows is not None:
            at_least("max_windows", max_windows, 1)
        return self._evaluate(self._validation[index], index, max_windows)

    def probe(self) -> Batch:
        """The corpus's probe text, each token with its domain, in as many rows as it needs."""
        passages = [
            (self.tokenizer.encode(document.text), self.corpus.domain_index(document.domain))
            for document in self.corpus.read("probe")
        ]
        tokens = np.array([token for tokens, _ in passages for token in tokens], dtype=np.int64)
        domain = np.array([index for tokens, index in passages for _ in tokens], dtype=np.int64)
        return self._padded_batch(tokens, domain, width=min(self.sequence_length, len(tokens)))

    def __repr__(self) -> str:
        size = f"{self.batch_size} x {self.sequence_length}"
        return f"Batches({self.corpus.name!r}, {self.tokenizer.name!r}, {size}, num_windows={self.num_windows})"

    def _repr_html_(self) -> str:
        rows = {
            "batch": f"{self.batch_size} x {self.sequence_length} tokens",
            "epoch": f"{human_count(self.num_windows)} windows, {self.num_windows / self.batch_size:,.1f} batches",
            "tokenizer": self.tokenizer.name,
            "seed": self.seed,
        }
        return facts(f"Batches of {self.corpus.name}", rows, note=f"domains: {', '.join(self.corpus.domains[:12])}")

    def _check_sizes(self, windows: list[int]) -> None:
        for domain, tokens, count in zip(self.corpus.domains, self._train, windows, strict=True):
            if count == 0:
                raise ValueError(
                    f"expected at least {self.sequence_length + 1} training tokens in domain {domain!r} of "
                    f"{self.corpus.name!r} (one window of sequence_length={self.sequence_length} and its last "
                    f"target), got {len(tokens)}; use a smaller sequence_length or more text"
                )

    def _window(self, tokens: Integer[np.ndarray, "T"], start: int) -> Int[np.ndarray, "window"]:
        return tokens[start : start + self.sequence_length + 1].astype(np.int64)

    def _full_batch(self, rows: Int[np.ndarray, "B window"], domain: Int[np.ndarray, "B"]) -> Batch:
        ids = torch.from_numpy(rows)
        label = torch.from_numpy(domain)[:, None].expand(-1, self.sequence_length).contiguous()
        return Batch(
            token_ids=ids[:, :-1].contiguous(),
            target_ids=ids[:, 1:].contiguous(),
            domain=label,
            domains=self.corpus.domains,
        )

    def _evaluate(self, tokens: Integer[np.ndarray, "T"], index: int, max_windows: int | None) -> Iterator[Batch]:
        available = (len(tokens) - 1) // self.sequence_length
        if available <= 0 < len(tokens):
            domain = np.full(len(tokens), index, dtype=np.int64)
            yield self._padded_batch(tokens.astype(np.int64), domain, width=self.sequence_length)
            return
        count = available if max_windows is None else min(max_windows, available)
        chosen = np.arange(count) * available // max(count, 1)
        for first in range(0, count, self.batch_size):
            starts = chosen[first : first + self.batch_size] * self.sequence_length
            rows = np.stack([self._window(tokens, int(start)) for start in starts])
            yield self._full_batch(rows, np.full(len(rows), index, dtype=np.int64))

    def _padded_batch(self, tokens: Int[np.ndarray, "T"], domain: Int[np.ndarray, "T"], *, width: int) -> Batch:
        rows = -(-len(tokens) // width)
        targets = np.append(tokens[1:], _NOT_SCORED)
        real = np.ones(len(tokens), dtype=bool)

        def shaped(values: np.ndarray, fill: int) -> Tensor:
            padding = np.full(rows * width - len(values), fill, dtype=values.dtype)
            return torch.from_numpy(np.concatenate([values, padding]).reshape(rows, width))

        return Batch(
            token_ids=shaped(tokens, self.tokenizer.end_id),
            target_ids=shaped(targets, _NOT_SCORED),
            mask=shaped(real, 0),
            domain=shaped(domain, int(domain[-1])),
            domains=self.corpus.domains,
        )
