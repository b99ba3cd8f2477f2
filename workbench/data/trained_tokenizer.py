"""A tokenizer from a `tokenizer.json`: ours, or that of an open checkpoint."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

from tokenizers import Tokenizer as LibraryTokenizer

from workbench.data.tokenizer import Tokenizer, byte_characters, check_token_id, write_tokenizer_folder
from workbench.data.word_cache import WORDS, WordCache

__all__ = ["TrainedTokenizer"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


@final
class TrainedTokenizer(Tokenizer):
    """Byte-level vocabularies (GPT-2, OLMoE, Qwen, ours) and SentencePiece ones with byte fallback (Llama, Mixtral).

    Args:
        tokenizer_json: content of a `tokenizer.json`.
        name: name it goes by.
        end_token: the special token that ends a document.
        start_token: the one that begins it, where there is one.

    Raises:
        ValueError: the file is damaged, the vocabulary is of another kind, or a token is not in it.
    """

    def __init__(self, tokenizer_json: str, *, name: str, end_token: str, start_token: str | None = None):
        _check_json(tokenizer_json, name)
        library = LibraryTokenizer.from_str(tokenizer_json)
        library.no_padding()
        library.no_truncation()
        # Text that spells a special token must stay text, or round trips and byte counts break.
        library.encode_special_tokens = True
        vocabulary = library.get_vocab(with_added_tokens=True)
        super().__init__(
            name=name,
            vocab_size=max(vocabulary.values()) + 1,
            end_id=_special_id(end_token, vocabulary, name),
            start_id=None if start_token is None else _special_id(start_token, vocabulary, name),
            fingerprint=hashlib.sha256(f"{tokenizer_json}\0{end_token}".encode()).hexdigest(),
        )
        self._json, self._end_token, self._start_token = tokenizer_json, end_token, start_token
        self._library = library
        added = library.get_added_tokens_decoder()
        self._special = {index: token.content for index, token in added.items() if token.special}
        self._bytes = _bytes_by_id(library, vocabulary, name)
        for index, token in added.items():
            self._bytes[index] = b"" if token.special else token.content.encode()
        self._words = WordCache(self._encode_anew) if _cuts_by_words(library) else None
        self._drops_first_space = any(node["type"] in ("Strip", "Metaspace") for node in _decoders(library))

    @classmethod
    def from_folder(cls, folder: Path) -> "TrainedTokenizer":
        """The tokenizer of a Hugging Face folder, or of one written by `save`.

        Raises:
            FileNotFoundError: there is no `tokenizer.json`.
            ValueError: it is damaged, of a kind that is not read, or no end token is named.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"expected a tokenizer.json in {folder}, found none; "
                "save the tokenizer there (transformers: AutoTokenizer(...).save_pretrained)"
            )
        config_path = folder / "tokenizer_config.json"
        config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
        end_token, start_token = _token_text(config.get("eos_token")), _token_text(config.get("bos_token"))
        if end_token is None:
            raise ValueError(f"expected an eos_token in {config_path}, found none; add the token that ends a text")
        name = config.get("workbench_name", folder.name)
        text = path.read_text(encoding="utf-8")
        return cls(text, name=name, end_token=end_token, start_token=start_token)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; the bundled vocabulary remembers the words it has seen."""
        return self._encode_anew(list(texts)) if self._words is None else self._words.encode_batch(texts)

    def _encode_anew(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._library.encode_batch_fast(texts, add_special_tokens=False)]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; empty for a special token and for an id that no token has."""
        check_token_id(token_id, self)
        return self._bytes.get(token_id, b"")

    def special_name(self, token_id: int) -> str | None:
        """Name of a special token."""
        check_token_id(token_id, self)
        return self._special.get(token_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text; a SentencePiece vocabulary drops the space it put before the first word."""
        text = b"".join(self.token_bytes(token_id) for token_id in token_ids).decode("utf-8", "replace")
        return text[1:] if self._drops_first_space and text.startswith(" ") else text

    def save(self, folder: Path) -> None:
        """Write a folder that `load_tokenizer` and transformers can open."""
        write_tokenizer_folder(
            folder, self._json, name=self.name, end_token=self._end_token, start_token=self._start_token
        )


def _check_json(text: str, name: str) -> None:
    # The library reports a damaged file only as a bare Exception.
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"expected JSON in the tokenizer of {name}, got a damaged file: {error}; copy it again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"expected a tokenizer.json of the tokenizers library in {name}, got JSON without a 'model'")


def _decoders(library: LibraryTokenizer) -> Iterator[dict[str, Any]]:
    # The library shows the parts of a decoder only through its serialised form.
    root = json.loads(library.to_str())["decoder"]
    if root is not None:
        yield from root["decoders"] if root["type"] == "Sequence" else [root]


def _cuts_by_words(library: LibraryTokenizer) -> bool:
    cutter = json.loads(library.to_str())["pre_tokenizer"]
    parts = cutter["pretokenizers"] if cutter is not None and cutter["type"] == "Sequence" else []
    return any(part["type"] == "Split" and part["pattern"] == {"Regex": WORDS} for part in parts)


def _bytes_by_id(library: LibraryTokenizer, vocabulary: dict[str, int], name: str) -> dict[int, bytes]:
    kinds = [node["type"] for node in _decoders(library)]
    if "ByteLevel" in kinds:
        value = {character: byte for byte, character in enumerate(byte_characters())}
        model = library.get_vocab(with_added_tokens=False)
        return {
            # As the library does: a token with a character outside the table stands for itself.
            index: bytes(value[c] for c in token) if value.keys() >= set(token) else token.encode()
            for token, index in model.items()
        }
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        fallback = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
        return {i: fallback.get(token, token.replace(_SPACE, " ").encode()) for token, i in vocabulary.items()}
    raise ValueError(
        f"expected a byte-level or a SentencePiece tokenizer in {name}, got decoder {', '.join(kinds) or 'none'}; "
        "this vocabulary does not say which bytes a token stands for"
    )


def _token_text(value: str | dict[str, Any] | None) -> str | None:
    # Older transformers wrote a token as {"content": "</s>", ...}.
    return value["content"] if isinstance(value, dict) else value


def _special_id(token: str, vocabulary: dict[str, int], name: str) -> int:
    if token not in vocabulary:
        raise ValueError(f"expected the token {token!r} in the vocabulary of {name}, it is not there; check the names")
    return vocabulary[token]
