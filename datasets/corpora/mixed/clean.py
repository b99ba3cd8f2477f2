"""From raw files to documents: no boilerplate, nothing twice, sizes between 300 B and 48 kB."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from records import Raw

__all__ = ["Repeats", "pieces"]

MIN_BYTES, MAX_BYTES = 300, 48_000
_PROSE = ("english", "german", "french", "russian")
# Documents taken from one file, so that no file speaks for a domain.
_MAX_DOCUMENTS = {"messages": 30}
_COMMON_WORDS = {
    "english": set("the of and to is in that be for a are this with".split()),
    "german": set("der die das und zu den nicht ist wird ein eine für".split()),
    "french": set("le la les de des et un une du pour est dans".split()),
}
# Control characters except tab, line end and form feed; a few messages ring a bell.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u200b\ufeff]")
_LEGAL = re.compile(r"copyright|licen[sc]e|all rights reserved|redistribut|warrant|SPDX", re.IGNORECASE)


class Repeats:
    """Remembers paragraphs and documents, so that each is kept once in a domain."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def is_new(self, domain: str, text: str) -> bool:
        """True the first time, white space and digits aside."""
        key = (domain, hashlib.sha256(re.sub(r"[\s\d]+", "", text).encode()).hexdigest())
        return not (key in self._seen or self._seen.add(key))


def pieces(raw: Raw, repeats: Repeats) -> list[str]:
    """The documents of one file; none when nothing of it is worth keeping."""
    loaded = raw.load()
    if "\ufffd" in loaded or "\0" in loaded:
        return []
    documents = []
    for part in _CUTS.get(raw.domain, _cut_prose)(
        _clean(raw, loaded, repeats), 6_000 if raw.kind == "messages" else 24_000
    ):
        text = part.strip("\n") + "\n"
        if MIN_BYTES <= len(text.encode()) <= MAX_BYTES and _is_sound(raw.domain, text):
            if raw.domain == "mathematics" or repeats.is_new(raw.domain, text):
                documents.append(text)
    return documents[: _MAX_DOCUMENTS.get(raw.kind, 12 if raw.domain == "data" else 6)]


def _clean(raw: Raw, loaded: str, repeats: Repeats) -> str:
    text = "\n".join(line.rstrip().expandtabs(8) for line in _CONTROLS.sub("", loaded).replace("\f", "\n").splitlines())
    text = re.sub(r"\n{3,}", "\n\n\n" if raw.domain == "python" else "\n\n", text)
    if raw.domain in _PROSE:
        text = re.sub(r"(?m)^ *[┌├└│].*\n?", "", text)
        return "\n\n".join(part for part in text.split("\n\n") if _is_wanted(raw, part, repeats))
    if raw.domain == "python":
        return _without_leading_comment(text, r"\A(#[^\n]*\n|\n)+")
    if raw.domain == "c":
        return _without_legal_comments(text)
    return text


def _is_wanted(raw: Raw, paragraph: str, repeats: Repeats) -> bool:
    if len(paragraph) < 40:
        return True
    is_fit = raw.kind == "licence" or not _is_legal(paragraph)
    return is_fit and not _is_untranslated(raw.domain, paragraph) and repeats.is_new(raw.domain, paragraph)


def _is_untranslated(domain: str, paragraph: str) -> bool:
    if domain == "english":
        return False
    words = re.findall(r"[^\W\d_]+", paragraph.lower())
    english = sum(word in _COMMON_WORDS["english"] for word in words)
    if domain == "russian":
        return english >= 2 and len(re.findall(r"[\u0430-\u044f\u0451]", paragraph, re.IGNORECASE)) < 0.3 * len(
            paragraph
        )
    return english >= 2 and english > sum(word in _COMMON_WORDS[domain] for word in words)


def _is_legal(paragraph: str) -> bool:
    return len(_LEGAL.findall(paragraph)) >= 2 or "©" in paragraph


def _without_leading_comment(text: str, pattern: str) -> str:
    match = re.match(pattern, text)
    return text[match.end() :] if match and _LEGAL.search(match.group()) else text


def _without_legal_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", lambda match: "" if _LEGAL.search(match.group()) else match.group(), text, flags=re.S)


def _is_sound(domain: str, text: str) -> bool:
    letters = sum(character.isalpha() for character in text) / len(text)
    if domain in _PROSE:
        return letters > 0.6 and _speaks(domain, text)
    if domain == "c":
        defines = len(re.findall(r"^\s*#", text, re.MULTILINE))
        return defines < 0.45 * text.count("\n") and ";" in text
    if domain == "data":
        # Long runs of hexadecimal or base-64 are noise that nothing can learn.
        return sum(map(len, re.findall(r"[0-9a-fA-F]{16,}|[A-Za-z0-9+/]{40,}", text))) < 0.05 * len(text)
    return True


def _speaks(domain: str, text: str) -> bool:
    if domain == "russian":
        return len(re.findall(r"[\u0430-\u044f\u0451]", text, re.IGNORECASE)) > 0.4 * len(text)
    words = re.findall(r"[^\W\d_]+", text.lower())
    share = {language: sum(word in common for word in words) for language, common in _COMMON_WORDS.items()}
    return max(share, key=share.__getitem__) == domain and share[domain] > 0.04 * len(words)


def _cut_prose(text: str, limit: int) -> Iterator[str]:
    return _grouped((part + "\n\n" for part in text.split("\n\n")), limit)


def _cut_python(text: str, limit: int) -> Iterator[str]:
    return _grouped(re.split(r"(?m)^(?=(?:@|def |class |async def )\S)", text), limit)


def _cut_data(text: str, limit: int) -> Iterator[str]:
    if len(text.encode()) <= limit:
        return iter([text])
    if text.lstrip().startswith(("{", "[")):
        return _cut_json(json.loads(text), limit // 2)
    if text.lstrip().startswith("<"):
        return _grouped(re.split(r"(?m)^(?=\s{0,8}<\w)", text), limit // 2)
    return _grouped(re.split(r"(?m)^(?=\S)", text), limit // 2)


def _cut_json(value: Any, limit: int) -> Iterator[str]:
    while isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    is_object = isinstance(value, dict)
    held: list[Any] = []
    for item in value.items() if is_object else value:
        held.append(item)
        text = json.dumps(dict(held) if is_object else held, indent=2, ensure_ascii=False)
        if len(text) > limit:
            yield text
            held = []


def _grouped(parts: Iterable[str], limit: int) -> Iterator[str]:
    held = ""
    for part in parts:
        if held and len((held + part).encode()) > limit:
            yield held
            held = ""
        held += part
    yield held


_CUTS: dict[str, Callable[[str, int], Iterator[str]]] = {"python": _cut_python, "data": _cut_data}
