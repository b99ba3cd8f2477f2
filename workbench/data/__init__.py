"""Text and tokens: corpora, tokenizers, batches that are a pure function of seed and index."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "CORPORA",
    "Batches",
    "ByteTokenizer",
    "Corpus",
    "CorpusCard",
    "Document",
    "Task",
    "Tokenizer",
    "TrainedTokenizer",
    "UserCorpus",
    "bundled",
    "corpus_names",
    "load_tokenizer",
    "open_corpus",
    "tokenizer_names",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CORPORA": "workbench.data.catalog",
        "Batches": "workbench.data.batches",
        "ByteTokenizer": "workbench.data.tokenizer",
        "Corpus": "workbench.data.corpus",
        "CorpusCard": "workbench.data.corpus",
        "Document": "workbench.data.corpus",
        "Task": "workbench.data.tasks",
        "Tokenizer": "workbench.data.tokenizer",
        "TrainedTokenizer": "workbench.data.trained_tokenizer",
        "UserCorpus": "workbench.data.user_corpus",
        "bundled": "workbench.data.bundle",
        "corpus_names": "workbench.data.catalog",
        "load_tokenizer": "workbench.data.catalog",
        "open_corpus": "workbench.data.catalog",
        "tokenizer_names": "workbench.data.catalog",
    },
)
