"""A short passage that a person recognises at a glance, for the probe text."""

import re

__all__ = ["passage"]

_MIN_BYTES, _MAX_BYTES = 70, 115


def passage(domain: str, text: str) -> str | None:
    """The first fitting passage of a document with a blank line after it, or None."""
    # A manual's heading stands right above its first paragraph.
    prose = re.sub(r"(?m)^[^a-z\u0430-\u044f\u0451\n]+\n", "\n", text)
    candidates = re.findall(_PATTERNS[domain], text) if domain in _PATTERNS else prose.split("\n\n")
    fitting = [part.strip("\n") for part in candidates if _fits(domain, part.strip("\n"))]
    return fitting[0] + "\n\n" if fitting else None


_PATTERNS = {
    "python": r"(?m)^def \w+\(.*\):\n(?:    .*\n|\n(?=    ))+",
    "c": r"(?m)^(?:static|struct|typedef|union|enum)[^;{}]*\n?\{[^{}]*\}[^;\n]*;?",
    "mathematics": r"(?m)^(?:Problem|Exercise) \d+\. .*\n(?:Answer|Solution)\. .*",
    "data": r"(?m)^ {2,4}\{\n(?: {4,}\"\w+\": .*\n)+ {2,4}\}",
}


def _fits(domain: str, part: str) -> bool:
    # Cyrillic letters take two bytes each.
    scale = 2 if domain == "russian" else 1
    if not _MIN_BYTES * scale <= len(part.encode()) <= _MAX_BYTES * scale:
        return False
    if domain in _PATTERNS:
        return True
    is_sentence = part[0].isupper() and part.endswith((".", "!"))
    return is_sentence and not re.search(r"[<>=|%_*\\\[\]{}()/\"]|--|\d| {2}", part) and part.count("\n") <= 3
