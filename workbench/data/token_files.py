"""A corpus as memory-mapped token files: tokenised once, then as fast as the page cache."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Integer
from platformdirs import user_cache_path
from tqdm.auto import tqdm

from workbench.core.units import human_bytes
from workbench.data.corpus import Corpus, Document, Split
from workbench.data.tokenizer import Tokenizer

__all__ = ["cache_home", "token_files"]

# Another layout of the files, or another way to split a user's text, needs another folder.
_LAYOUT = "tokens-1"
# Characters that are tokenised in one call: large enough for all cores, small enough that the
# library's own bookkeeping (about 100 B a token) stays below 50 MB.
_CHUNK = 1 << 19


def cache_home(cache_folder: Path | None) -> Path:
    """The given folder, or the user's cache folder for this package."""
    return user_cache_path("moe-workbench") if cache_folder is None else Path(cache_folder)


def token_files(
    corpus: Corpus, tokenizer: Tokenizer, split: Split, *, cache_folder: Path | None = None
) -> tuple[Integer[np.ndarray, "T"], ...]:
    """Token ids of one split, one memory map per domain; every document ends with the end token.

    They are made on first use, beside their final place, and renamed when whole: a killed run
    leaves nothing that a later run could mistake for the corpus. Processes that want the same files
    wait for the first one.

    Raises:
        OSError: the disk is full; nothing is left behind.
    """
    corpus_folder = f"{_slug(corpus.name)}-{corpus.fingerprint[:16]}"
    tokenizer_folder = f"{_slug(tokenizer.name)}-{tokenizer.fingerprint[:16]}"
    folder = cache_home(cache_folder) / _LAYOUT / corpus_folder / tokenizer_folder
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    if not (folder / split).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with _only_writer(folder):
            if not (folder / split).is_dir():
                _write_split(corpus, tokenizer, split, folder, dtype)
    return tuple(_mapped(path, dtype) for path in _paths(folder / split, corpus.domains))


def _paths(folder: Path, domains: Sequence[str]) -> list[Path]:
    return [folder / f"{index:03d}-{_slug(domain)}.bin" for index, domain in enumerate(domains)]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:40]


def _mapped(path: Path, dtype: np.dtype) -> Integer[np.ndarray, "T"]:
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The lock dies with its process, so whatever unfinished work lies here belongs to nobody.
        for leftover in folder.glob("unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _write_split(corpus: Corpus, tokenizer: Tokenizer, split: Split, folder: Path, dtype: np.dtype) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"unfinished-{split}-", dir=folder))
    try:
        _tokenise(corpus, tokenizer, split, _paths(unfinished, corpus.domains), dtype)
        unfinished.rename(folder / split)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        wanted = human_bytes(sum(corpus.card.bytes.values()))
        raise OSError(
            error.errno,
            f"no space left in {folder} for the token files of {corpus.name!r} ({wanted} of text); "
            "free some space, or pass cache_folder= on another disk",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tokenise(corpus: Corpus, tokenizer: Tokenizer, split: Split, paths: list[Path], dtype: np.dtype) -> None:
    total = sum(corpus.card.bytes.values()) if split == "train" else None
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        # The bar appears only when there is something to wait for.
        bar = stack.enter_context(
            tqdm(total=total, desc=f"tokenise {corpus.name} {split}", unit="B", unit_scale=True, delay=1.0)
        )
        for chunk in _chunks(corpus.read(split)):
            _append(chunk, corpus, tokenizer, files, dtype)
            bar.update(sum(len(text.encode()) for _, text, _ in chunk))
        for file in files:
            file.flush()
            os.fsync(file.fileno())


def _append(
    chunk: list[tuple[str, str, bool]],
    corpus: Corpus,
    tokenizer: Tokenizer,
    files: Sequence[IO[bytes]],
    dtype: np.dtype,
) -> None:
    encoded = tokenizer.encode_batch([text for _, text, _ in chunk])
    for (domain, _, is_last), token_ids in zip(chunk, encoded, strict=True):
        end = [tokenizer.end_id] if is_last else []
        files[corpus.domains.index(domain)].write(np.array(token_ids + end, dtype=dtype).tobytes())


def _chunks(documents: Iterator[Document]) -> Iterator[list[tuple[str, str, bool]]]:
    chunk: list[tuple[str, str, bool]] = []
    held = 0
    for document in documents:
        for text, is_last in _parts(document.text):
            chunk.append((document.domain, text, is_last))
            held += len(text)
            if held >= _CHUNK:
                yield chunk
                chunk, held = [], 0
    if chunk:
        yield chunk


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    # A document larger than a chunk is cut after a line where there is one, so memory stays bounded.
    start = 0
    while len(text) - start > _CHUNK:
        cut = text.rfind("\n", start, start + _CHUNK) + 1 or start + _CHUNK
        yield text[start:cut], False
        start = cut
    yield text[start:], True
