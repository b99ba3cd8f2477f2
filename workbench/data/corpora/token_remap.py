"""One language, written in a different alphabet in every domain: the right expert is the domain."""

import hashlib
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.check import within
from workbench.core.records import Batch
from workbench.data.tasks import Task

__all__ = ["TokenRemap"]

_ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8)
_FOLLOWERS = 4


@final
class TokenRemap(Task):
    """A Markov chain over 64 symbols, shared by all domains; each domain permutes the symbols.

    What follows a symbol depends on the domain, so a token that goes to its domain's expert needs to
    know one table of 64 lines, and a token that goes anywhere needs all of them.

    Args:
        num_domains: number of alphabets, and of right experts.
        documents: training documents per domain, of 511 symbols.
        seed: of the chain, the alphabets and the text.
    """

    def __init__(self, *, num_domains: int = 4, documents: int = 2000, seed: int = 0):
        within("num_domains", num_domains, 1, 64)
        rule = np.random.default_rng([seed, num_domains])
        self._next, self._prob = _markov_chain(rule)
        # The text is drawn by the base class from a stream per split and domain; a seed's text
        # differs through its rule, which the fingerprint covers.
        self._alphabets = np.stack([rule.permutation(len(_ALPHABET)) for _ in range(num_domains)])
        content = b"".join(part.tobytes() for part in (self._next, self._prob, self._alphabets))
        super().__init__(
            name="token_remap",
            title=f"one Markov source in {num_domains} alphabets; the right expert is the domain",
            domains=tuple(f"alphabet_{index}" for index in range(num_domains)),
            fingerprint=hashlib.sha256(content + str(documents).encode()).hexdigest(),
            num_right_experts=num_domains,
            entropy_bits=float(_entropy_rate(self._next, self._prob)),
            documents=documents,
        )

    @property
    def alphabets(self) -> tuple[str, ...]:
        """How each domain writes the symbols 0 to 63."""
        return tuple(_ALPHABET[order].tobytes().decode("ascii") for order in self._alphabets)

    def right_expert(self, batch: Batch) -> Int[Tensor, "B S"]:
        """The domain of each token; -1 for padding and for the end of a document.

        Raises:
            ValueError: the batch carries no domains.
        """
        if batch.domain is None:
            raise ValueError("expected a batch with domain labels, got none; take it from Batches(corpus, ...)")
        return torch.where(batch.token_ids < 128, batch.domain, -1)

    def symbols(
        self, domain_index: int, generator: np.random.Generator, count: int, length: int
    ) -> Int[np.ndarray, "B S"]:
        """Walks through the chain, written in the domain's alphabet."""
        state = (generator.random(count) * len(_ALPHABET)).astype(np.int64)
        states = np.empty((count, length), dtype=np.int64)
        for place in range(length):
            states[:, place] = state
            choice = (generator.random((count, 1)) > self._prob[state].cumsum(1)[:, :-1]).sum(1)
            state = self._next[state, choice]
        codes: Int[np.ndarray, "B S"] = _ALPHABET[self._alphabets[domain_index][states]].astype(np.int64)
        return codes


def _markov_chain(rule: np.random.Generator) -> tuple[Int[np.ndarray, "V followers"], Float[np.ndarray, "V followers"]]:
    # Each symbol leads to the next one and to three others, so the chain visits every symbol.
    size = len(_ALPHABET)
    steps = np.stack([np.append(1, 2 + rule.permutation(size - 2)[: _FOLLOWERS - 1]) for _ in range(size)])
    follower = (np.arange(size)[:, None] + steps) % size
    weight = rule.random((size, _FOLLOWERS)) + 0.1
    return follower, weight / weight.sum(1, keepdims=True)


def _entropy_rate(follower: Int[np.ndarray, "V followers"], prob: Float[np.ndarray, "V followers"]) -> float:
    size = len(follower)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], follower), prob)
    visits = np.full(size, 1 / size)
    for _ in range(2000):
        visits = visits @ matrix
    logarithm = np.log2(matrix, where=matrix > 0, out=np.zeros_like(matrix))
    return -float(visits @ (matrix * logarithm).sum(1))
