"""Names to objects: the corpora and tokenizers that a person can ask for."""

from pathlib import Path

from workbench.core.check import did_you_mean
from workbench.core.registry import Registry
from workbench.core.spec import Spec
from workbench.data.bundle import bundled
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import ByteTokenizer, Tokenizer
from workbench.data.trained_tokenizer import TrainedTokenizer
from workbench.data.user_corpus import UserCorpus

__all__ = ["CORPORA", "corpus_names", "load_tokenizer", "open_corpus", "tokenizer_names"]

CORPORA = Registry("workbench.data.corpora", Corpus)


def corpus_names() -> tuple[str, ...]:
    """Every registered corpus, sorted."""
    return CORPORA.names()


def open_corpus(name_or_path: str | Path, *, cache_folder: Path | None = None) -> Corpus:
    """A registered corpus, or a person's own text.

    A path is a folder of .txt files (sub-folders are domains), a .txt, .jsonl or .parquet file with a
    `text` and perhaps a `domain` field, or a folder that Hugging Face `datasets` saved. A name may carry
    arguments: `token_remap:num_domains=8`.

    Args:
        name_or_path: a name in `corpus_names()`, with arguments or without, or a path.
        cache_folder: where what was found in a file is remembered; None is the user's cache folder.

    Raises:
        LookupError: neither a registered name nor an existing path.
        ValueError: the text cannot be used; the message says where and why.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text.partition(":")[0] in CORPORA.names():
        corpus = Spec.parse(text).build(CORPORA)
        assert isinstance(corpus, Corpus)
        return corpus
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise LookupError(_unknown("corpus", text, corpus_names(), "a folder of .txt, a .jsonl or a .parquet file"))
    return UserCorpus(path, cache_folder=cache_folder)


def tokenizer_names() -> tuple[str, ...]:
    """Every tokenizer that ships with the package, sorted."""
    folders = [path.parent.name for path in bundled("tokenizers").glob("*/tokenizer.json")]
    return tuple(sorted(["byte", *folders]))


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """A bundled tokenizer, or the one in a folder: a run's, or a Hugging Face checkpoint's.

    Raises:
        LookupError: neither a bundled name nor an existing path.
        ValueError: the folder's tokenizer cannot be used; the message says why.
    """
    if str(name_or_path) in tokenizer_names():
        name = str(name_or_path)
        return ByteTokenizer() if name == "byte" else TrainedTokenizer.from_folder(bundled(f"tokenizers/{name}"))
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise LookupError(_unknown("tokenizer", str(name_or_path), tokenizer_names(), "a folder with a tokenizer.json"))
    folder = path if path.is_dir() else path.parent
    tokenizer = TrainedTokenizer.from_folder(folder)
    return ByteTokenizer() if _is_byte_tokenizer(tokenizer) else tokenizer


def _is_byte_tokenizer(tokenizer: Tokenizer) -> bool:
    # A saved byte tokenizer is an ordinary folder, so that transformers can open it.
    byte = ByteTokenizer()
    return (tokenizer.name, tokenizer.vocab_size, tokenizer.end_id) == (byte.name, byte.vocab_size, byte.end_id)


def _unknown(kind: str, name: str, known: tuple[str, ...], path_hint: str) -> str:
    return (
        f"no {kind} {name!r}{did_you_mean(name, known)}. Known names: {', '.join(known)}; "
        f"a path also works ({path_hint}), and {name!r} is not one."
    )
