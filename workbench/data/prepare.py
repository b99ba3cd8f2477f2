"""Tokenise a corpus before somebody waits for it: `python -m workbench.data.prepare [CORPUS]`."""

import sys

from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.data.token_files import token_files

__all__ = ["prepare"]


def prepare(name: str = "mixed") -> None:
    """Fill the token cache of a corpus with its own tokenizer; nothing to do if it is full."""
    corpus = open_corpus(name)
    tokenizer = load_tokenizer(corpus.tokenizer)
    token_files(corpus, tokenizer, "train")
    token_files(corpus, tokenizer, "validation")


if __name__ == "__main__":
    prepare(*sys.argv[1:2])
