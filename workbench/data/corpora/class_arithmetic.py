"""Four kinds of token, each with its own arithmetic: the right expert is the token's class."""

import hashlib
from typing import final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.core.records import Batch
from workbench.data.tasks import Task

__all__ = ["ClassArithmetic"]

# A character is a class (upper half of its byte) and a value (lower half): `!`, `1`, `A` and `a`
# are value 1 of the four classes.
_CLASSES = np.array([0x20, 0x30, 0x40, 0x60])
_VALUES = 16


@final
class ClassArithmetic(Task):
    """Each symbol has a class and a value; its class decides how the next value follows from its own.

    The next value is `(a * value + b) mod 16` with `a, b` of the class; the next class is drawn at
    random. So the best model pays exactly 2 bits a symbol, and the expert that a token needs can be
    read off the token itself.

    Args:
        documents: training documents, of 511 symbols.
        seed: of the four rules.
    """

    def __init__(self, *, documents: int = 8000, seed: int = 0):
        rule = np.random.default_rng(seed)
        # Odd factors make each rule a permutation of the values, so no value dies out.
        self._factor = 2 * rule.permutation(_VALUES // 2)[: len(_CLASSES)] + 1
        self._offset = rule.permutation(_VALUES)[: len(_CLASSES)]
        content = self._factor.tobytes() + self._offset.tobytes()
        super().__init__(
            name="class_arithmetic",
            title="four classes of token with one affine rule each; the right expert is the class",
            domains=("class_arithmetic",),
            fingerprint=hashlib.sha256(content + str(documents).encode()).hexdigest(),
            num_right_experts=len(_CLASSES),
            entropy_bits=float(np.log2(len(_CLASSES))),
            documents=documents,
        )

    def right_expert(self, batch: Batch) -> Int[Tensor, "B S"]:
        """The class of each token, in the order of the ASCII table; -1 for anything else."""
        upper_half = torch.where(batch.token_ids < 128, batch.token_ids & 0xF0, -1)
        matches = upper_half[..., None] == torch.from_numpy(_CLASSES)
        return torch.where(matches.any(-1), matches.int().argmax(-1), -1)

    def symbols(
        self, domain_index: int, generator: np.random.Generator, count: int, length: int
    ) -> Int[np.ndarray, "B S"]:
        """Sequences that follow the rules, with classes drawn at random."""
        classes = (generator.random((count, length)) * len(_CLASSES)).astype(np.int64)
        value = (generator.random(count) * _VALUES).astype(np.int64)
        codes = np.empty((count, length), dtype=np.int64)
        for place in range(length):
            kind = classes[:, place]
            codes[:, place] = _CLASSES[kind] | value
            value = (self._factor[kind] * value + self._offset[kind]) % _VALUES
        return codes
