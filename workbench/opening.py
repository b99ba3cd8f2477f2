"""What several commands open: a model's tokenizer, a text, a recording of it, a trace."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.data.catalog import load_tokenizer
from workbench.data.tokenizer import Tokenizer
from workbench.model.families import FAMILIES
from workbench.model.folders import CONFIG, FOREIGN_CONFIG, model_folder, tokenizer_folder
from workbench.model.host import HostModel, record_host
from workbench.model.host.recording import host_recorder
from workbench.model.recorded import record_text
from workbench.model.tensor_files import read_json
from workbench.model.transformer import Transformer
from workbench.model.weights import load
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace

__all__ = ["is_trace", "needs_host", "open_tokenizer", "read_text", "record_file", "record_windows"]

_WINDOW = 1024
_TRACE_ENDINGS = (".zarr", ".zarr.zip", ".nc")


def open_tokenizer(folder: Path, vocab_size: int) -> tuple[Tokenizer, str]:
    """The tokenizer of a run or checkpoint, and what to tell about it; bytes where it has none of its own.

    Args:
        vocab_size: tokens that the model knows.

    Raises:
        ValueError: no tokenizer, and a vocabulary that is too small for bytes.
    """
    own = tokenizer_folder(folder)
    if own is not None:
        return load_tokenizer(own), ""
    tokenizer = load_tokenizer("byte")
    if vocab_size < tokenizer.vocab_size:
        raise ValueError(f"{folder} holds no tokenizer.json, and its vocabulary is too small for bytes; add one")
    return tokenizer, f"{folder} holds no tokenizer.json: text is read byte by byte, not as the model was trained"


def read_text(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        ValueError: it is not UTF-8, or holds a NUL as binary files do.
        OSError: it cannot be read.
    """
    try:
        words = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text; byte {error.start} is not: convert it first") from error
    if "\0" in words:
        raise ValueError(f"{path} must be text; it holds a NUL character, as binary files do")
    return words


def needs_host(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of a family that only transformers can run.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: a damaged configuration.
    """
    found = model_folder(folder)
    return not (found / CONFIG).is_file() and read_json(found / FOREIGN_CONFIG).get("model_type") not in FAMILIES


def record_file(folder: Path, text: Path, *, tell: Callable[[str], None]) -> Trace:
    """The routing of a text file by the model of a run or checkpoint, ours or, of other families, transformers'.

    Args:
        tell: called with what to know of tokenizer, host and extent, in words.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ModuleNotFoundError: a family that needs transformers, which is not installed.
        ValueError: a damaged checkpoint, a family without experts, an empty file, or none of text.
    """
    if needs_host(folder):
        host = HostModel.open(folder)
        tell(repr(host))
        tokenizer, words = open_tokenizer(folder, host.vocab_size)
        trace, extent = _record_host_windows(host, tokenizer, text)
    else:
        model = load(folder).eval()
        tokenizer, words = open_tokenizer(folder, model.config.vocab_size)
        trace, extent = record_windows(model, tokenizer, text)
    tell(words)
    tell(extent)
    return trace


def record_windows(model: Transformer, tokenizer: Tokenizer, text: Path) -> tuple[Trace, str]:
    """The routing of a text file, window after window; and how many tokens in what windows, in words.

    Raises:
        ValueError: an empty file, or none of text.
    """
    attrs = {"model": json.dumps(model.config.to_json()), "tokenizer": tokenizer.name, "source": text.name}
    recorder = Recorder(attrs=attrs, decode_piece=tokenizer.piece)
    token_ids, window = _token_ids(text, tokenizer), min(_WINDOW, model.config.max_positions)
    for step, some in enumerate(_windows(token_ids, window)):
        record_text(model, tokenizer, some, recorder, step=step)
    return recorder.trace(), f"{len(token_ids)} tokens in windows of {window}"


def _record_host_windows(host: HostModel, tokenizer: Tokenizer, text: Path) -> tuple[Trace, str]:
    recorder = host_recorder(host, tokenizer, source=text.name)
    token_ids, window = _token_ids(text, tokenizer), min(_WINDOW, host.max_positions)
    lead = [] if tokenizer.start_id is None else [tokenizer.start_id]
    for step, some in enumerate(_windows(token_ids, window)):
        record_host(host, lead + some, recorder=recorder, first_step=step)
    return recorder.trace(), f"{len(token_ids)} tokens in windows of {window}"


def _token_ids(text: Path, tokenizer: Tokenizer) -> list[int]:
    token_ids = tokenizer.encode(read_text(text))
    if not token_ids:
        raise ValueError(f"{text} is empty; give a file with at least one token")
    return token_ids


def _windows(token_ids: list[int], size: int) -> Iterator[list[int]]:
    return (token_ids[first : first + size] for first in range(0, len(token_ids), size))


def is_trace(path: Path) -> bool:
    """Whether a path is named as traces are."""
    return path.name.endswith(_TRACE_ENDINGS)
