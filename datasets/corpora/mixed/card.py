"""The card of the corpus, written from what was built."""

import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

from records import Raw

__all__ = ["write_card"]

_ABOUT = {
    "english": "manuals, release notes, the Python reference, prose of documentation strings, licences",
    "german": "manuals and message catalogues",
    "french": "manuals and message catalogues",
    "russian": "manuals and message catalogues",
    "python": "the standard library and packages",
    "c": "headers of the C library, Linux, GCC, Python, NumPy",
    "mathematics": "**synthetic**: generated exercises with worked solutions",
    "data": "JSON, YAML, XML and CSV: settings, schemas, code lists, Unicode and time zone tables",
}


def write_card(out: Path, manifest: dict[str, Any], sources: dict[Raw, int], held: dict[int, Counter[str]]) -> None:
    """Write README.md beside the data."""
    template = (Path(__file__).resolve().parent / "card.md.template").read_text("utf-8")
    packed = sum(path.stat().st_size for path in out.glob("*.xz"))
    total = sum(split["bytes"] for splits in manifest["domains"].values() for split in splits.values())
    probe = "".join(_texts(out / f"{domain}.probe.jsonl.xz") for domain in manifest["domains"])
    card = template.format(
        total=f"{total / 1e6:.1f}",
        packed=f"{packed / 1e6:.1f}",
        files=len(sources),
        domains=_domains(manifest),
        licences=_licences(sources, held),
        checksums="\n".join(f"{digest}  {name}" for name, digest in manifest["files"].items()),
        probe=probe.strip(),
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def _texts(path: Path) -> str:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return "".join(json.loads(line)["text"] for line in lines)


def _domains(manifest: dict[str, Any]) -> str:
    rows = ["| domain | what | train documents | train bytes | validation documents | validation bytes |"]
    rows.append("|---|---|---:|---:|---:|---:|")
    for domain, splits in manifest["domains"].items():
        train, validation = splits["train"], splits["validation"]
        numbers = [train["documents"], train["bytes"], validation["documents"], validation["bytes"]]
        rows.append(f"| {domain} | {_ABOUT[domain]} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(rows)


def _licences(sources: dict[Raw, int], held: dict[int, Counter[str]]) -> str:
    size: Counter[str] = Counter()
    packages: dict[str, set[str]] = {}
    for raw, number in sources.items():
        size[raw.licence] += sum(held[number].values())
        packages.setdefault(raw.licence, set()).add(f"{raw.package} {raw.version}")
    rows = ["| licence | bytes | packages and versions |", "|---|---:|---|"]
    rows += [f"| {name} | {count:,} | {', '.join(sorted(packages[name]))} |" for name, count in size.most_common()]
    return "\n".join(rows)
