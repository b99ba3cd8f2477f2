"""Tokenise a corpus before somebody waits for it: `python -m workbench.data.prepare [CORPUS]`."""

import sys
from pathlib import Path

from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.data.token_files import token_files

__all__ = ["prepare"]


def prepare(name: str = "mixed", *, cache_folder: Path | None = None) -> None:
    """Fill the token cache of a corpus with its own tokenizer; nothing to do if it is full.

    Args:
        cache_folder: where token files are kept; None is the user's cache folder.
    """
    corpus = open_corpus(name, cache_folder=cache_folder)
    tokenizer = load_tokenizer(corpus.tokenizer)
    token_files(corpus, tokenizer, "train", cache_folder=cache_folder)
    token_files(corpus, tokenizer, "validation", cache_folder=cache_folder)


if __name__ == "__main__":
    prepare(*sys.argv[1:2])
