"""What commands say: words of a model to standard output, all else to standard error."""

import sys
from typing import NoReturn, final

from tqdm import tqdm

__all__ = ["Conversion", "say", "write"]


def write(text: str) -> None:
    """A piece of what was asked for, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(words: str) -> None:
    """A line about it, if there is anything to say."""
    if words:
        sys.stderr.write(words + "\n")


@final
class Conversion:
    """A bar while experts are converted; none where they are there already."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, done: int, total: int) -> None:
        """So many of all experts are converted."""
        if self._bar is None:
            self._bar = tqdm(total=total, unit="expert", dynamic_ncols=True, desc="converting")
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()
