"""Text to token ids and back, with the bytes behind every token known exactly."""

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from jaxtyping import Int
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer
from torch import Tensor

from workbench.core.html import facts

__all__ = [
    "END_OF_TEXT",
    "ByteTokenizer",
    "TextStream",
    "Tokenizer",
    "byte_characters",
    "check_token_id",
    "write_tokenizer_folder",
]

END_OF_TEXT = "<|endoftext|>"

# Bytes that are no whole character come out of "surrogateescape" as U+DC80..U+DCFF; those and the
# control characters are shown by their value. Tab and newline stay: they are layout.
_SHOWN = {0xDC00 + byte: f"<0x{byte:02X}>" for byte in range(0x80, 0x100)} | {
    code: f"<0x{code:02X}>" for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"
}


@final
class TextStream:
    """Text from tokens that arrive one at a time; never emits half a character."""

    def __init__(self, tokenizer: "Tokenizer"):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; may be empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What remains at the end: U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)


class Tokenizer(ABC):
    """Text to token ids and back.

    Args:
        name: public name, or the name of the folder it came from.
        vocab_size: number of ids; every id is below it.
        end_id: the token that ends a document.
        start_id: the token that begins one, where the tokenizer has such a token.
        fingerprint: hash of everything that decides the ids; names caches and checkpoints.
    """

    def __init__(self, *, name: str, vocab_size: int, end_id: int, start_id: int | None, fingerprint: str):
        self.name = name
        self.vocab_size = vocab_size
        self.end_id = end_id
        self.start_id = start_id
        self.fingerprint = fingerprint

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text. No start or end token is added; text that spells one stays text."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for inside a text; empty for a special token."""

    @abstractmethod
    def special_name(self, token_id: int) -> str | None:
        """Name of a special token, None for a token that stands for text."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """The text; special tokens vanish, bytes that are no character become U+FFFD."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a folder that `load_tokenizer` and transformers can open."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without start or end token."""
        return self.encode_batch([text])[0]

    def piece(self, token_id: int) -> str:
        """A token as people read it; bytes that are no whole character look like `<0xE2>`."""
        special = self.special_name(token_id)
        if special is not None:
            return special
        return self.token_bytes(token_id).decode("utf-8", "surrogateescape").translate(_SHOWN)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as people read it."""
        return [self.piece(token_id) for token_id in token_ids]

    def stream(self) -> TextStream:
        """A decoder for tokens that continue a text, one at a time."""
        return TextStream(self)

    @cached_property
    def byte_counts(self) -> Int[Tensor, "V"]:
        """Bytes behind each token [B], zero for special tokens: from nats per token to bits per byte."""
        return torch.tensor([len(self.token_bytes(token_id)) for token_id in range(self.vocab_size)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, vocab_size={self.vocab_size})"

    def _repr_html_(self) -> str:
        rows = {"vocabulary": f"{self.vocab_size:,} tokens", "end token": f"{self.piece(self.end_id)} ({self.end_id})"}
        return facts(f"Tokenizer {self.name}", rows, note=f"fingerprint {self.fingerprint[:12]}")


@final
class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8, and one that ends a text: 257 ids, nothing to train."""

    def __init__(self) -> None:
        super().__init__(name="byte", vocab_size=257, end_id=256, start_id=None, fingerprint="byte-257")

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The bytes of each text."""
        return [list(text.encode()) for text in texts]

    def token_bytes(self, token_id: int) -> bytes:
        """The byte itself."""
        check_token_id(token_id, self)
        return bytes([token_id]) if token_id < 256 else b""

    def special_name(self, token_id: int) -> str | None:
        """The end token's name."""
        return END_OF_TEXT if token_id == self.end_id else None

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text."""
        return b"".join(self.token_bytes(token_id) for token_id in token_ids).decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Write a folder that `load_tokenizer` and transformers can open."""
        characters = byte_characters()
        library = LibraryTokenizer(models.BPE(vocab={characters[byte]: byte for byte in range(256)}, merges=[]))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        library.decoder = decoders.ByteLevel()
        library.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        write_tokenizer_folder(folder, library.to_str(pretty=True), name=self.name, end_token=END_OF_TEXT)


def byte_characters() -> list[str]:
    """The printable character that byte-level vocabularies write for each byte (the GPT-2 table)."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def write_tokenizer_folder(
    folder: Path, tokenizer_json: str, *, name: str, end_token: str, start_token: str | None = None
) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` that transformers expects beside it."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end_token,
        "clean_up_tokenization_spaces": False,
        "workbench_name": name,
    }
    if start_token is not None:
        config["bos_token"] = start_token
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check_token_id(token_id: int, tokenizer: Tokenizer) -> None:
    """Nothing, if the tokenizer has such an id.

    Raises:
        ValueError: it has not.
    """
    if not 0 <= token_id < tokenizer.vocab_size:
        raise ValueError(
            f"token id must be between 0 and {tokenizer.vocab_size - 1} for tokenizer {tokenizer.name!r}, "
            f"got {token_id}; was it made with another tokenizer?"
        )
