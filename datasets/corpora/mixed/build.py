"""Rebuild the corpus from what this machine has installed.

    python datasets/corpora/mixed/build.py [--out FOLDER]

Run it with the project's own Python on Debian 12 with the packages that `debian.LICENCES` lists.
The same packages give the same bytes.
"""

import argparse
import csv
import hashlib
import io
import json
import lzma
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import debian
import python_packages
from card import write_card
from clean import Repeats, pieces
from mathematics import mathematics
from passages import passage
from records import Raw

# Bytes of each kind of source in each domain; a kind that has less gives all it has.
QUOTAS = {
    "english": {"reference": 800_000, "manual": 1_100_000, "notes": 500_000, "perl": 450_000, "docstrings": 500_000},
    "german": {"manual": 2_000_000, "messages": 1_500_000},
    "french": {"manual": 2_000_000, "messages": 1_500_000},
    "russian": {"manual": 1_500_000, "messages": 1_800_000},
    "python": {"standard library": 1_900_000, "packages": 1_100_000},
    "c": {"libc6-dev": 900_000, "linux-libc-dev": 900_000, "libgcc-12-dev": 350_000, "python": 600_000},
    "mathematics": {"synthetic": 2_600_000},
    "data": {"json": 1_100_000, "yaml": 500_000, "xml": 700_000, "unicode": 350_000, "zone": 300_000},
}
OTHER_QUOTA = 250_000
# Where the probe's passage of a domain comes from, where not any kind reads well.
PROBE_KINDS = {"english": "reference", "german": "manual", "french": "manual"}
VALIDATION_SHARE = 0.04
TITLE = "prose in four languages, Python, C, mathematics and structured data"
LICENCE = "free software licences, recorded per source in sources.csv.xz"


@dataclass
class Group:
    """Documents of one file; a split takes all of them or none."""

    raw: Raw
    texts: list[str]

    @property
    def bytes(self) -> int:
        """UTF-8 size [B]."""
        return sum(len(text.encode()) for text in self.texts)

    @property
    def order(self) -> str:
        """A place in a shuffled order that depends on the content alone."""
        return hashlib.sha256("\0".join(self.texts).encode()).hexdigest()


def collect() -> Iterator[Raw]:
    """Every file that may be used, in a fixed order."""
    versions = debian.installed()
    yield from debian.english(versions)
    yield from debian.translations(versions)
    yield from debian.c_headers(versions)
    yield from debian.tables(versions)
    yield from python_packages.code()
    yield from python_packages.prose()
    yield from python_packages.headers()
    yield from python_packages.json_files()
    yield from python_packages.unicode_tables()
    yield from mathematics(2600)


def choose(raws: Iterator[Raw]) -> dict[str, list[Group]]:
    """Clean documents of each domain, in an order that depends on their content, within the quotas."""
    repeats, used = Repeats(), Counter[tuple[str, str]]()
    chosen: dict[str, list[Group]] = {domain: [] for domain in QUOTAS}
    for raw in sorted(raws, key=lambda raw: raw.order):
        quota = QUOTAS[raw.domain].get(raw.kind, OTHER_QUOTA)
        if used[raw.domain, raw.kind] >= quota:
            continue
        texts = pieces(raw, repeats)
        # Messages are independent of one another, so each block of a catalogue stands alone.
        groups = [Group(raw, [text]) for text in texts] if raw.kind == "messages" else [Group(raw, texts)]
        chosen[raw.domain].extend(group for group in groups if group.texts)
        used[raw.domain, raw.kind] += sum(group.bytes for group in groups)
    return {domain: sorted(groups, key=lambda group: group.order) for domain, groups in chosen.items()}


def split(domain: str, groups: list[Group]) -> dict[str, list[Group]]:
    """Train and validation, and the one group whose passage is the domain's part of the probe."""
    kind = PROBE_KINDS.get(domain)
    probe = next(g for g in groups if kind in (None, g.raw.kind) and passage(domain, g.texts[0]))
    rest = [group for group in groups if group is not probe]
    wanted = VALIDATION_SHARE * sum(group.bytes for group in rest)
    parts: dict[str, list[Group]] = {"train": [], "validation": [], "probe": [probe]}
    held = 0
    for group in rest:
        # One large file must not be the whole validation split.
        is_held_out = held < wanted and group.bytes < wanted / 3
        parts["validation" if is_held_out else "train"].append(group)
        held += group.bytes if is_held_out else 0
    return parts


def write(domains: dict[str, list[Group]], out: Path) -> None:
    """The text files, the table of sources, the manifest and the card."""
    sources: dict[Raw, int] = {}
    summary: dict[str, dict[str, dict[str, int]]] = {}
    held: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for domain, groups in domains.items():
        summary[domain] = {}
        for name, members in split(domain, groups).items():
            lines = []
            for group in members:
                number = sources.setdefault(group.raw, len(sources))
                texts = [passage(domain, group.texts[0]) or ""] if name == "probe" else group.texts
                lines += [json.dumps({"text": text, "source": number}, ensure_ascii=False) for text in texts]
                held[number][name] += sum(len(text.encode()) for text in texts)
            texts_bytes = sum(len(json.loads(line)["text"].encode()) for line in lines)
            summary[domain][name] = {"documents": len(lines), "bytes": texts_bytes}
            _pack(out / f"{domain}.{name}.jsonl.xz", "\n".join(lines) + "\n")
    _pack(out / "sources.csv.xz", _table(sources, held))
    _pack(out / "notices.txt.xz", _notices(sources))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.xz"))}
    manifest = {"title": TITLE, "licence": LICENCE, "domains": summary, "files": files}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    write_card(out, manifest, sources, held)


def _pack(path: Path, text: str) -> None:
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def _table(sources: dict[Raw, int], held: dict[int, Counter[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["source", "domain", "package", "version", "licence", "path", "train", "validation", "probe"])
    for raw, number in sources.items():
        count = held[number]
        row = [number, raw.domain, raw.package, raw.version, raw.licence, raw.path]
        writer.writerow([*row, count["train"], count["validation"], count["probe"]])
    return buffer.getvalue()


def _notices(sources: dict[Raw, int]) -> str:
    parts = []
    for package in sorted({raw.package for raw in sources}):
        parts += [f"==== {package}: {name} ====\n{text}" for name, text in _notices_of(package)]
    common = sorted(path for path in Path("/usr/share/common-licenses").iterdir() if not path.is_symlink())
    parts += [f"==== licence: {path.name} ====\n{path.read_text('utf-8')}" for path in common]
    return "\n\n".join(parts)


def _notices_of(package: str) -> Iterator[tuple[str, str]]:
    path = Path(f"/usr/share/doc/{package}/copyright")
    if package in debian.LICENCES and path.is_file():
        yield "copyright", path.read_text("utf-8", errors="replace")
    elif package in python_packages.LICENCES or package == "python":
        yield from python_packages.licence_files(package)


def main() -> None:
    """Build into a folder and say what is there."""
    parser = argparse.ArgumentParser(description="Rebuild the bundled corpus from installed packages.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where to write")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    write(choose(collect()), out)
    sys.stdout.write((out / "README.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
