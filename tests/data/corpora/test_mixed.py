import csv
import hashlib
import json
import lzma
import math
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest

from workbench.data import bundled, open_corpus
from workbench.data.corpora import mixed as module
from workbench.data.corpus import SPLITS

MOST_COMPRESSED_BYTES = 8_000_000


@pytest.fixture(scope="module")
def corpus():
    return open_corpus("mixed")


@pytest.fixture(scope="module")
def texts(corpus):
    """Every document, by split and domain."""
    return {split: {domain: list(corpus.documents(split, domain)) for domain in corpus.domains} for split in SPLITS}


@pytest.fixture(scope="module")
def folder():
    return bundled("corpora/mixed")


@pytest.fixture(scope="module")
def sources(folder):
    with lzma.open(folder / "sources.csv.xz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_listed_checksums_are_those_of_the_files_and_of_the_card(folder):
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.xz")}
    assert listed == found
    card = (folder / "README.md").read_text()
    assert all(f"{digest}  {name}" in card for name, digest in found.items())


def test_the_corpus_fits_in_git(folder):
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < MOST_COMPRESSED_BYTES


def test_there_are_eight_domains_of_like_size_each_in_every_split(corpus, texts):
    assert corpus.domains == ("english", "german", "french", "russian", "python", "c", "mathematics", "data")
    sizes = [sum(len(text.encode()) for text in texts["train"][domain]) for domain in corpus.domains]
    assert min(sizes) > 1_500_000
    assert max(sizes) < 2 * min(sizes)
    for domain in corpus.domains:
        assert len(texts["validation"][domain]) >= 10
        assert len(texts["probe"][domain]) == 1


def test_the_manifest_counts_what_is_there(folder, texts):
    manifest = json.loads((folder / "manifest.json").read_text())["domains"]
    for split, domains in texts.items():
        for domain, documents in domains.items():
            size = sum(len(text.encode()) for text in documents)
            assert manifest[domain][split] == {"documents": len(documents), "bytes": size}


def test_validation_is_about_four_percent(texts):
    for domain in texts["train"]:
        train, validation = (sum(map(len, texts[split][domain])) for split in ("train", "validation"))
        assert 0.03 < validation / (train + validation) < 0.06


def test_no_document_is_in_two_splits_or_twice_in_one(texts):
    everything = [text for domains in texts.values() for documents in domains.values() for text in documents]
    assert len(everything) == len(set(everything))


def test_no_file_gives_documents_to_two_splits(sources):
    # Message catalogues are split block by block, because messages do not hang together.
    two = [row["path"] for row in sources if sum(int(row[split]) > 0 for split in SPLITS) > 1]
    assert [path for path in two if not path.endswith(".mo")] == []


def test_hardly_any_line_of_prose_is_in_train_and_validation(texts):
    for domain in ("english", "german", "french", "russian"):
        known = {line.strip() for text in texts["train"][domain] for line in text.splitlines()}
        held_out = [line.strip() for text in texts["validation"][domain] for line in text.splitlines()]
        long = [line for line in held_out if len(line) > 60]
        assert sum(line in known for line in long) < 0.03 * len(long)


def test_the_probe_is_in_no_other_document(texts):
    for domain, (passage,) in texts["probe"].items():
        others = texts["train"][domain] + texts["validation"][domain]
        assert not any(passage.strip() in text for text in others), domain


def test_the_probe_is_one_screen_of_text(corpus, bpe):
    tokens = bpe.encode(corpus.probe_text)
    assert 150 <= len(tokens) <= 400
    assert all(character.isprintable() for character in set(corpus.probe_text) - {"\n"})
    assert corpus.probe_text.count("\n") < 60


def test_the_text_is_clean(texts):
    for domains in texts.values():
        for documents in domains.values():
            for text in documents:
                assert unicodedata.is_normalized("NFC", text)
                assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffd]", text)


def test_documents_are_neither_crumbs_nor_books(texts):
    sizes = [len(text.encode()) for domain in texts["train"].values() for text in domain]
    assert min(sizes) >= 300
    assert max(sizes) <= 60_000


def test_every_source_has_a_package_a_version_and_a_licence(sources, folder):
    assert all(row["package"] and row["version"] and row["licence"] and row["path"] for row in sources)
    assert not any(row["path"].startswith("/") for row in sources)
    card = (folder / "README.md").read_text()
    assert {row["licence"] for row in sources if f"| {row['licence']} |" not in card} == set()
    assert {row["licence"] for row in sources if row["domain"] == "mathematics"} == {"CC0-1.0"}


def test_every_document_names_its_source(folder, sources, corpus):
    used = Counter()
    for domain in corpus.domains:
        for split in SPLITS:
            with lzma.open(folder / f"{domain}.{split}.jsonl.xz", "rt", encoding="utf-8") as lines:
                for line in lines:
                    record = json.loads(line)
                    assert sources[record["source"]]["domain"] == domain
                    used[record["source"], split] += len(record["text"].encode())
    listed = {(n, split): int(row[split]) for n, row in enumerate(sources) for split in SPLITS if int(row[split])}
    assert dict(used) == listed


def test_the_notices_of_every_package_are_kept(folder, sources):
    notices = lzma.decompress((folder / "notices.txt.xz").read_bytes()).decode()
    packages = {row["package"] for row in sources} - {"generated"}
    assert {name for name in packages if f"==== {name}: " not in notices} == set()
    assert all(f"licence: {name}" in notices for name in ("GPL-2", "GPL-3", "LGPL-2.1", "Apache-2.0", "Artistic"))


def trigrams(text: str) -> Counter:
    return Counter(text[i : i + 3] for i in range(len(text) - 2))


def test_twenty_lines_of_naive_bayes_tell_the_domains_apart(texts):
    counts = {domain: Counter() for domain in texts["train"]}
    for domain, documents in texts["train"].items():
        for text in documents[::10]:
            counts[domain].update(trigrams(text[:3000]))
    size = len(set().union(*counts.values()))
    scores = {domain: (counted, math.log(counted.total() + size)) for domain, counted in counts.items()}

    def guess(text: str) -> str:
        seen = trigrams(text)
        fits = {d: sum(n * (math.log(c[t] + 1) - total) for t, n in seen.items()) for d, (c, total) in scores.items()}
        return max(fits, key=fits.__getitem__)

    for domain, documents in texts["validation"].items():
        right = [guess(text[:4000]) == domain for text in documents]
        assert sum(right) / len(right) > 0.9, domain


def test_a_damaged_file_says_which_and_how_to_restore_it(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "mixed")
    path = copy / "german.train.jsonl.xz"
    path.write_bytes(path.read_bytes()[:5000])
    monkeypatch.setattr(module, "bundled", lambda relative: copy)
    with pytest.raises(ValueError, match=r"german.train.jsonl.xz with sha256 .*got a damaged file .*git checkout"):
        list(module.Mixed().documents("train", "german"))


def test_the_mathematics_is_rebuilt_to_the_byte_by_its_generator(folder, texts, tmp_path):
    script = "import json, mathematics as m; print(json.dumps([raw.load() for raw in m.mathematics(2600)]))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1"},
    )
    generated = {text.rstrip("\n") + "\n" for text in json.loads(result.stdout)}
    kept = texts["train"]["mathematics"] + texts["validation"]["mathematics"]
    assert set(kept) <= generated
