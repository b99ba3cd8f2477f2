"""Tokens of words that were seen before: several times the speed of encoding every word anew."""

import re
from collections.abc import Callable, Sequence
from itertools import chain

__all__ = ["WORDS", "WordCache"]

# How the bundled tokenizer cuts text before it merges bytes: a digit is one token, a word or a run of
# symbols takes the blank before it, indentation is one piece, and so are line ends.
WORDS = r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\n+|[^\S\n]+(?!\S)|\s"

# Pieces whose ends are always ends of `WORDS`, so that the tokens of a text are those of its pieces one after
# the other. White space that does not end in a blank stays with what follows it, because `(?!\S)` looks there.
_RUN = r"(?:[^\W\d_]+|(?:[^\w\s]|_)+|\d{1,3})"
_PIECES = re.compile(rf"\s+(?= \S)|\n+(?=\S)| ?{_RUN}|\s+{_RUN}|\s+")
# Outside these characters Python and the library may disagree on what a letter or a space is.
_PLAIN = re.compile(r"[\t\n -~\u00a0-\u1fff\u2010-\u2fff]*")
_MOST_WORDS = 1 << 18


class WordCache:
    """Encodes texts through a table of pieces, and asks the library only for new ones.

    The result is that of the library, to the token. Texts with unusual characters go to it whole.

    Args:
        encode: the library's encoder of many texts, for a vocabulary that cuts text by `WORDS`.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]):
        self._encode = encode
        self._known: dict[str, list[int]] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        cut = [_PIECES.findall(text) if _PLAIN.fullmatch(text) else [text] for text in texts]
        if len(self._known) > _MOST_WORDS:
            self._known = {}
        # The table only grows while it is in use, so threads may share it.
        known = self._known
        new = list({piece for pieces in cut for piece in pieces if piece not in known})
        if new:
            known.update(zip(new, self._encode(new), strict=True))
        return [list(chain.from_iterable(map(known.__getitem__, pieces))) for pieces in cut]
